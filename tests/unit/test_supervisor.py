"""The supervisor's rules, without a desk."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oms.servers.process import spawn
from oms.supervisor.children import Child, Hurry, Program, stop_all
from oms.supervisor.console import Tail
from oms.supervisor.desk import parse
from oms.supervisor.programs import chosen, programs
from oms.supervisor.readiness import missing, reasons, taken
from oms.supervisor.testing import processes

PYTHON = sys.executable


def child(folder: Path, code: str, *, name: str = "web", tier: int = 0) -> Child:
    return Child(Program(name, (PYTHON, "-c", code), tier), folder / f"{name}.log", os.environ, folder)


def wait_end(child: Child) -> None:
    end = time.monotonic() + 10
    while child.running():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestRestart:
    def test_patience_doubles_with_each_quick_end(self, tmp_path: Path) -> None:
        short = child(tmp_path, "raise SystemExit(3)")
        waits = []
        for now in (100.0, 101.0, 102.0, 103.0):
            short.start(now)
            wait_end(short)
            told = short.ended(now)
            assert told is not None
            assert "exit 3" in told
            waits.append(short.due_at - now)

        assert waits == [0.5, 1.0, 2.0, 4.0]

    def test_patience_starts_anew_after_a_steady_run(self, tmp_path: Path) -> None:
        short = child(tmp_path, "pass")
        for now in (0.0, 1.0, 2.0):
            short.start(now)
            wait_end(short)
            short.ended(now)
        short.start(10.0)
        wait_end(short)
        short.ended(10.0 + 31)

        assert short.due_at == 10.0 + 31 + 0.5

    def test_patience_has_a_ceiling(self, tmp_path: Path) -> None:
        short = child(tmp_path, "pass")
        short.ends = 20
        short.start(0.0)
        wait_end(short)
        short.ended(1.0)

        assert short.due_at == 31.0

    def test_a_running_process_has_not_ended(self, tmp_path: Path) -> None:
        long = child(tmp_path, "import time; time.sleep(60)")
        long.start(0.0)

        assert long.ended(1.0) is None
        long.finish()


class TestStop:
    def test_highest_tier_ends_first(self, tmp_path: Path) -> None:
        order = tmp_path / "order"
        code = (
            "import signal,sys,time\n"
            f"def leave(*_):\n open({str(order)!r}, 'a').write(sys.argv[1] + ' '); sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, leave); print('up', flush=True); time.sleep(60)"
        )
        children = [
            Child(Program(name, (PYTHON, "-c", code, name), tier), tmp_path / f"{name}.log", os.environ, tmp_path)
            for name, tier in (("market", 0), ("worker", 1), ("web", 2))
        ]
        for one in children:
            one.start(0.0)
        until_written(*(one.log for one in children))

        stop_all(children, hurried=Hurry())

        assert order.read_text().split() == ["web", "worker", "market"]

    def test_a_second_signal_kills_who_does_not_listen(self, tmp_path: Path) -> None:
        code = (
            "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
        )
        deaf = child(tmp_path, code)
        deaf.start(0.0)
        until_written(deaf.log)
        hurry = Hurry()
        hurry.add()
        hurry.add()
        began = time.monotonic()

        stop_all([deaf], hurried=hurry)

        assert time.monotonic() - began < 5
        assert not deaf.running()

    def test_a_pool_goes_though_its_leader_went_before(self, tmp_path: Path) -> None:
        pool = "import subprocess; p=subprocess.Popen(['sleep','60']); print(p.pid, flush=True)"
        leader = child(tmp_path, pool)
        leader.start(0.0)
        until_written(leader.log)
        wait_end(leader)

        assert leader.finish() == 0
        assert until_gone(int(leader.log.read_text()))

    def test_a_pool_goes_with_its_leader(self, tmp_path: Path) -> None:
        pool = (
            "import subprocess,sys,time; p=subprocess.Popen(['sleep','60']); print(p.pid, flush=True); time.sleep(60)"
        )
        leader = child(tmp_path, pool)
        leader.start(0.0)
        until_written(leader.log)
        member = int(leader.log.read_text())

        leader.finish()

        assert until_gone(member)


class TestGuard:
    def test_ends_whole_groups_when_the_owner_is_killed(self, tmp_path: Path) -> None:
        owner = subprocess.Popen(
            [PYTHON, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert owner.stdout is not None
        members = [int(word) for word in owner.stdout.readline().split()]
        assert len(members) == 2

        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        owner.stdout.close()

        assert all(until_gone(pid) for pid in members)

    def test_leaves_alone_what_was_forgotten_and_who_stopped_in_order(self, tmp_path: Path) -> None:
        from oms.supervisor.watch import Guard

        with (tmp_path / "log").open("ab"):
            stays = spawn(["sleep", "60"], log=tmp_path / "log", orphan_signal=signal.SIGTERM)
        guard = Guard(tmp_path)
        guard.watch("stays", stays.pid, signal.SIGTERM)
        guard.done()

        assert stays.poll() is None
        stays.kill()
        stays.wait()

    def test_a_killed_guard_gets_a_successor_that_knows_everyone(self, tmp_path: Path) -> None:
        from oms.supervisor.watch import Guard

        one = spawn(["sleep", "60"], log=tmp_path / "log", orphan_signal=signal.SIGTERM)
        guard = Guard(tmp_path)
        guard.watch("one", one.pid, signal.SIGTERM)
        guard.process.kill()
        guard.process.wait()

        guard.mend()
        assert guard.process.stdin is not None
        guard.process.stdin.close()  # as if we had been killed

        assert one.wait(10) == -signal.SIGTERM
        guard.process.wait(10)


OWNER = """
import signal, sys, time
from pathlib import Path
from oms.servers.process import spawn
from oms.supervisor.watch import Guard
folder = Path(sys.argv[1])
deaf = "import os,signal,subprocess,time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
deaf += "p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
leader = spawn([sys.executable, "-c", deaf], log=folder / "log", orphan_signal=signal.SIGTERM)
guard = Guard(folder)
guard.watch("leader", leader.pid, signal.SIGTERM)
while not (folder / "log").read_text().strip():
    time.sleep(0.05)
print(leader.pid, (folder / "log").read_text().strip(), flush=True)
time.sleep(60)
"""


class TestTail:
    def test_shows_warnings_and_errors_only(self, tmp_path: Path) -> None:
        log = tmp_path / "web.log"
        follower = Tail("web", log)
        log.write_text(
            "2026-11-23T11:00:00Z [info     ] order_placed\n"
            "2026-11-23T11:00:00Z [warning  ] stale_quote symbol=AAPL\n"
            "ValueError: no\n"
            "2026-11-23 11:00:00 UTC [7] FATAL:  the database system is shutting down\n"
        )

        shown = follower.look()

        assert [line.partition(" | ")[2].split()[0] for line in shown] == [
            "2026-11-23T11:00:00Z",
            "ValueError:",
            "2026-11-23",
        ]

    def test_tells_the_same_words_once(self, tmp_path: Path) -> None:
        log = tmp_path / "web.log"
        follower = Tail("web", log)
        log.write_text("".join(f"2026-11-23T11:00:0{n}Z [warning  ] lost attempt={n}\n" for n in range(9)))

        assert len(follower.look()) == 1

    def test_starts_at_the_end_and_waits_for_whole_lines(self, tmp_path: Path) -> None:
        log = tmp_path / "web.log"
        log.write_text("ERROR of last time\n")
        follower = Tail("web", log)
        with log.open("a") as more:
            more.write("ERROR half")
            more.flush()
            assert follower.look() == []
            more.write(" a line\n")

        assert [line.partition(" | ")[2] for line in follower.look()] == ["ERROR half a line"]


class TestOptions:
    def test_only_chooses_by_name_or_kind(self) -> None:
        assert chosen("gateway-PRIME", ["gateway"])
        assert chosen("gateway-PRIME", ["gateway-PRIME"])
        assert not chosen("gateway-FAST", ["gateway-PRIME"])
        assert not chosen("web", ["worker"])
        assert chosen("web", [])

    def test_only_refuses_unknown_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            parse(["--only", "web,wurker"])

        assert end.value.code == 2
        assert "wurker" in capsys.readouterr().err

    def test_without_a_demo_no_market_moves(self, tmp_path: Path) -> None:
        assert [p.name for p in programs("127.0.0.1", 1, tmp_path, market=False)] == ["pricer", "worker", "beat", "web"]

    @pytest.mark.parametrize(
        "arguments", [["-n0"], ["-n", "4"], ["--pdb"], ["-p", "no:xdist"], ["tests/unit/test_x.py::test_y"]]
    )
    def test_test_leaves_the_workers_to_who_names_them(self, arguments: list[str]) -> None:
        assert processes(arguments) == []

    def test_test_takes_two_workers_else(self) -> None:
        assert processes(["-q", "tests/unit"]) == ["-n", "2", "--dist", "loadgroup"]


class TestReadiness:
    def test_nothing_listening_misses_the_web(self) -> None:
        assert missing("127.0.0.1", 1, "/readyz") == ["web"]

    def test_names_the_checks_that_say_no(self) -> None:
        body = b'{"status": "unready", "checks": {"redis": {"ok": true}, "gateways": {"ok": false, "detail": "FAST"}}}'

        assert reasons(503, body) == ["gateways (FAST)"]

    def test_a_body_without_checks_still_tells_the_status(self) -> None:
        assert reasons(502, b"<html>") == ["web answers 502"]


def until_written(*logs: Path) -> None:
    end = time.monotonic() + 10
    while not all(log.exists() and log.read_text().strip() for log in logs):
        assert time.monotonic() < end
        time.sleep(0.02)


def until_gone(pid: int) -> bool:
    """Gone, or only waiting to be buried."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


class TestDoor:
    def test_a_port_that_somebody_listens_on_is_taken_and_then_free_again(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            assert "in use" in taken("127.0.0.1", port)
        assert taken("127.0.0.1", port) == ""

    def test_a_port_that_is_none_is_told(self) -> None:
        assert taken("127.0.0.1", 99_999) != ""
