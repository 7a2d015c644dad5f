"""Which programs a desk runs, and which of them are wanted now."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from oms.bootstrap import ROOT
from oms.supervisor.children import Program

KNOWN = ("web", "worker", "beat", "gateway", "pricer", "market")
VENUES, SENDING, DOOR = 0, 1, 2  # tiers of the stop


def manage(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(ROOT / "manage.py"), *arguments)


def programs(host: str, port: int, data: Path, *, market: bool) -> list[Program]:
    """All but the gateways, in the order of their start."""
    celery = (sys.executable, "-m", "celery", "-A", "oms.celery")
    web = ("-m", "uvicorn", "oms.asgi:application", "--host", host, "--port", str(port))
    serving = (
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--ws",
        "websockets",
        "--ws-max-size",
        "65536",
        "--no-access-log",
    )
    patient = ("--timeout-graceful-shutdown", "5")
    pool = ("-c", "2", "--without-gossip", "--without-mingle", "-O", "fair")
    return [
        *([Program("market", manage("run_market"), VENUES)] if market else []),
        Program("pricer", manage("run_pricer"), VENUES),
        Program("worker", (*celery, "worker", "-l", "warning", *pool), SENDING),
        Program("beat", (*celery, "beat", "-l", "warning", "-s", str(data / "beat-schedule")), SENDING),
        Program("web", (sys.executable, *web, *serving, *patient), DOOR),
    ]


def gateway(code: str) -> Program:
    return Program(f"gateway-{code}", manage("run_gateway", code), VENUES)


def chosen(name: str, only: Sequence[str]) -> bool:
    """`--only gateway` means every gateway, `--only gateway-PRIME` that one."""
    return not only or name in only or name.partition("-")[0] in only


class Roster:
    """The enabled brokers, asked of the database over one kept connection."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.connection: psycopg.Connection[tuple[str]] | None = None

    def desired_gateways(self) -> list[str] | None:
        """Broker codes; None when the database cannot say just now: then everything stays as it is."""
        try:
            if self.connection is None:
                self.connection = psycopg.connect(self.database_url, autocommit=True, connect_timeout=3)
            rows = self.connection.execute("select code from brokers_broker where enabled order by code").fetchall()
            return [code for (code,) in rows]
        except psycopg.errors.UndefinedTable:
            return None
        except psycopg.Error:
            self.close()
            return None

    def close(self) -> None:
        if self.connection is not None:
            with suppress(psycopg.Error):
                self.connection.close()
            self.connection = None
