"""`up`: servers, schema, demo data, processes; then watch over all of it until told to stop."""

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg

from oms.bootstrap import ROOT
from oms.launch import environment
from oms.runtime.build import hash_of
from oms.servers import Lease, attach_or_start
from oms.servers.discovery import note, stop
from oms.servers.process import tail
from oms.supervisor.children import Child, Hurry, Program, stop_all
from oms.supervisor.console import Tail, say
from oms.supervisor.programs import KNOWN, Roster, chosen, gateway, manage, programs
from oms.supervisor.readiness import missing, taken
from oms.supervisor.watch import Guard

TICK_SECONDS = 0.2
ROSTER_SECONDS = 2.0
READY_SECONDS = 120.0
TELL_SECONDS = 10.0
DOOR_SECONDS = 15.0
"""What a desk that was killed may need to leave its port."""

WELCOME = """
The desk is open:   {address}
  log in as         trader, trader2, risk, risk2, ops, ops2, auditor or admin    password: demo
  look at           {address}/            live blotter, order ticket, positions with P&L
                    {address}/admin/      every record, limits, history
                    {address}/api/docs/   the API; a token: .venv/bin/python manage.py token trader{where}
  logs              {logs}
Ctrl-C stops all of it; the data stays in {data}.
"""
PLAIN_WELCOME = "\nThe desk is open: {address}\nLogs: {logs}. Ctrl-C stops all of it; the data stays in {data}.\n"


class Refused(Exception):
    """The desk cannot start; the text says why."""


def up(arguments: Sequence[str], data: Path) -> int:
    """Run a desk on this data folder; 0 after an orderly stop, 2 when it could not start."""
    options = parse(arguments)
    hurry = Hurry()
    with ExitStack() as held:
        own = [n for n, url in (("PostgreSQL", "DATABASE_URL"), ("Valkey", "REDIS_URL")) if not os.environ.get(url)]
        say(
            f"Starting {' and '.join(own)} (data in {data}) ..."
            if own
            else "Using the servers of DATABASE_URL and REDIS_URL ..."
        )
        lease = attach_or_start(data, held, purpose="up", own=True)
        hurry.listen()  # until here a signal just ends us, and the servers with us
        desk = Desk(options, data, lease, hurry)
        try:
            desk.find_door()
            desk.prepare()
            desk.watch()
            return 0
        except Refused as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            desk.close()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("manage.py up", description="Start the whole desk and watch over it.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--data", help="the folder that keeps everything (default: var, or OMS_DATA)")
    parser.add_argument("--no-demo", action="store_true", help="neither demo data nor the moving demo market")
    parser.add_argument("--only", default="", help=f"comma list of {', '.join(KNOWN)}")
    parser.add_argument("--sessions", action="store_true", help="demo equities keep real exchange hours")
    options = parser.parse_args(list(arguments))
    options.only = [name for name in options.only.split(",") if name]
    if strange := [name for name in options.only if name.partition("-")[0] not in KNOWN]:
        parser.error(f"--only knows {', '.join(KNOWN)}; not {', '.join(strange)}")
    return options


class Desk:
    """Everything that one `up` runs."""

    def __init__(self, options: argparse.Namespace, data: Path, lease: Lease, hurry: Hurry) -> None:
        self.options, self.data, self.lease, self.hurry = options, data, lease, hurry
        self.logs = data / "log"
        sessions = {"OMS_SESSIONS": "1"} if options.sessions else {}
        build = {
            "OMS_BUILD": os.environ.get("OMS_BUILD") or hash_of(ROOT)
        }  # who is restarted is still this desk's build
        self.env = os.environ | environment(data, lease.urls) | sessions | build | {"OMS_SUPERVISED": "1"}
        self.demo = not options.no_demo and self.env["OMS_ENV"] == "demo"
        self.children: dict[str, Child] = {}
        self.roster = Roster(lease.urls.database_url)
        self.guard = Guard(data)
        self.server_tails = [Tail(server.name, server.log) for server in lease.owned]
        self.guard_servers()

    def guard_servers(self) -> None:
        for server in self.lease.owned:
            pid = server.process.pid if server.process else self.lease.adopted.get(server.name)
            if pid is not None:
                self.guard.watch(server.name, pid, server.stop_signal)

    def find_door(self) -> None:
        """Refuse a port that somebody else has, before anything is set up: his answers would be taken for ours."""
        host, port = self.options.host, self.options.port
        end = time.monotonic() + DOOR_SECONDS
        told = False
        while chosen("web", self.options.only) and (fault := taken(host, port)) and not self.hurry.stopping():
            if not told:
                say(f"Port {port} is not free ({fault}); waiting up to {DOOR_SECONDS:.0f} s for it ...")
                told = True
            if time.monotonic() > end:
                raise Refused(f"oms: nobody can listen on {host} port {port}: {fault}. Use another --port.")
            time.sleep(TICK_SECONDS)

    def prepare(self) -> None:
        """Bring the schema to this code's state; put the demo desk into an empty one."""
        self._run("migrate", "--noinput", "-v", "0", saying="Bringing the schema up to date ...")
        if self.demo and not self.hurry.stopping() and is_empty(self.lease.urls.database_url):
            self._run("seed_demo", saying="Setting up the demo desk ...")
        if self.options.sessions:
            self._run("load_calendars", saying="Loading the hours of the exchanges ...")

    def _run(self, *arguments: str, saying: str) -> None:
        if self.hurry.stopping():
            return
        say(saying)
        log = self.logs / f"{arguments[0]}.log"
        step = Child(Program(arguments[0], manage(*arguments), 0), log, self.env, ROOT)
        self.guard.watch(arguments[0], step.start(time.monotonic()), signal.SIGTERM)
        while step.running():
            if self.hurry.stopping():
                step.ask_to_stop()
            time.sleep(0.05)
        self.guard.forget(arguments[0])
        code = step.finish()
        if code != 0 and not self.hurry.stopping():
            raise Refused(f"manage.py {' '.join(arguments)} failed (exit {code}); the end of {log}:\n{tail(log, 20)}")

    def watch(self) -> None:
        """Start everything, tell when it serves, and keep it running until a signal."""
        for program in programs(self.options.host, self.options.port, self.data, market=self.demo):
            self._add(program)
        waiting = Waiting(self)
        roster_at = 0.0
        while not self.hurry.stopping():
            now = time.monotonic()
            self._mend_servers()
            if now >= roster_at:
                self._match_gateways()
                roster_at = now + ROSTER_SECONDS
            for child in self.children.values():
                self._tend(child, now)
            for follower in [*self.server_tails, *(child.tail for child in self.children.values())]:
                for line in follower.look():
                    say(line)
            waiting.look(now)
            time.sleep(TICK_SECONDS)

    def _add(self, program: Program) -> None:
        if chosen(program.name, self.options.only) and program.name not in self.children:
            child = Child(program, self.logs / f"{program.name}.log", self.env, ROOT)
            self.children[program.name] = child

    def _tend(self, child: Child, now: float) -> None:
        if told := child.ended(now):
            say(told)
        if child.process is None and now >= child.due_at and not self.hurry.stopping():
            self.guard.watch(child.program.name, child.start(now), signal.SIGTERM)

    def _match_gateways(self) -> None:
        codes = self.roster.desired_gateways()
        if codes is None:
            return
        wanted = {f"gateway-{code}": code for code in codes}
        for code in wanted.values():
            self._add(gateway(code))
        for name in [name for name in self.children if name.startswith("gateway-") and name not in wanted]:
            say(f"{name} is no longer wanted: stopping it")
            stop_all([self.children.pop(name)], hurried=self.hurry)
            self.guard.forget(name)

    def _mend_servers(self) -> None:
        self.guard.mend()
        for server in self.lease.owned:
            gone = server.process.poll() is not None if server.process else server.running_pid() is None
            if not gone or self.hurry.stopping():
                continue
            say(f"{server.name} ended; starting it again on port {server.port}; see {server.log}")
            self.lease.adopted.pop(server.name, None)
            try:
                server.spawn()
                self.guard_servers()
                server.wait_ready()
            except Exception as error:  # whatever it was, the next tick tries again
                say(f"{server.name} did not come back: {error}")
                time.sleep(1)
            note(self.data, self.lease.owned)

    def close(self) -> None:
        """Processes from the door inwards, then the servers."""
        say("Stopping; once more Ctrl-C does it at once ..." if self.children else "Stopping ...")
        self.roster.close()
        stop_all(list(self.children.values()), hurried=self.hurry)
        for server in reversed(self.lease.owned):
            stop(server, hard=self.hurry.hard, pid=self.lease.adopted.get(server.name))
        self.guard.done()
        say("Stopped; the data is kept.")


class Waiting:
    """Asks until the desk serves, and says meanwhile what is missing."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        only = desk.options.only
        self.path = "/healthz" if only else "/readyz"
        self.over = not chosen("web", only)
        self.start = self.told_at = time.monotonic()
        if self.over:
            say(f"Running {', '.join(desk.children)}; logs in {desk.logs}.")
        else:
            say(f"Starting {', '.join(desk.children)} and the gateways ...")

    def look(self, now: float) -> None:
        if self.over:
            return
        options = self.desk.options
        lacking = missing(options.host, options.port, self.path)
        if not lacking:
            self.over = True
            text = WELCOME if self.desk.demo else PLAIN_WELCOME
            host = "127.0.0.1" if options.host == "0.0.0.0" else options.host  # noqa: S104 - shown, not bound
            where = "" if self.desk.data == ROOT / "var" else f" --data {shlex.quote(str(self.desk.data))}"
            say(
                text.format(
                    address=f"http://{host}:{options.port}", logs=self.desk.logs, data=self.desk.data, where=where
                )
            )
        elif now - self.start > READY_SECONDS:
            self.over = True
            say(f"NOT READY after {READY_SECONDS:.0f} s; missing: {', '.join(lacking)}. The logs: {self.desk.logs}")
        elif now - self.told_at > TELL_SECONDS:
            self.told_at = now
            say(f"  waiting for: {', '.join(lacking)}")


def is_empty(database_url: str) -> bool:
    """No broker yet: nobody has set this desk up."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select exists (select 1 from brokers_broker)").fetchone()
    return row is None or not row[0]
