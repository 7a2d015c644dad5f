"""Match brokers' trade confirmations to executions."""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers.adapters.port import BrokerError
from oms.kernel.decimals import text
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from orders.operations.confirming import LATE, BadFile, Confirmed, confirm_answers, confirm_file, unconfirmed
from portfolio.domain.profiles import STANDARD
from portfolio.statements import require_broker

SHOWN = 50


class Command(BaseCommand):
    """`confirm_trades FILE --broker PRIME`: exit 0 all confirmed, 1 something differs or was never confirmed, 2 it can't run."""

    help = "Match a broker's confirmations, from a file or as it answers, to executions; what differs is a break."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the file, whose it is and how to read it."""
        parser.add_argument("file", type=Path, nargs="?", help="without one the broker is asked")
        parser.add_argument("--broker", required=True, help="a code")
        parser.add_argument("--profile", default=STANDARD, help="how to read it, as a statement's fills are read")
        parser.add_argument(
            "--days", type=int, default=3, help="how far back a broker is asked and the unconfirmed are told"
        )
        add_options(parser, changes=True, role="ops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Match, and tell."""
        actor, at = actor_named(options["user"], "ops"), datetime.now(UTC)
        since = at - timedelta(days=max(options["days"], 1))
        try:
            broker = require_broker(options["broker"])
            if options["dry_run"]:
                whence = str(options["file"] or f"the answers of {broker.code}")
                tell(self, options, {"broker": broker.code, "dry_run": True}, f"Would match {whence}.")
                return
            if options["file"] is None:
                done = confirm_answers(broker, since=since, actor=actor, at=at)
            else:
                done = confirm_file(
                    options["file"].read_bytes(), broker=broker.code, name=options["file"].name, profile=options["profile"],
                    actor=actor, at=at,
                )  # fmt: skip
        except BadFile as bad:
            faults = [f"{e.field}: {e.code}: {e.detail}" for e in bad.errors]
            tell(self, options, {"bad_lines": bad.count, "faults": faults}, "\n".join([*faults[:SHOWN], bad.detail]))
            raise SystemExit(1) from None
        except (DomainError, BrokerError, OSError) as error:
            raise CommandError(getattr(error, "detail", str(error)), returncode=2) from error
        missing = unconfirmed(broker.id, since=since, until=at - LATE)
        told = done.as_json() | {"broker": broker.code, "unconfirmed": [str(e.pk) for e in missing], "dry_run": False}
        tell(self, options, told, "\n".join(_lines(done, missing)))
        if done.breaks or missing:
            raise SystemExit(1)


def _lines(done: Confirmed, missing: list[Any]) -> list[str]:
    return [
        f"{done.matched} matched, {done.mismatched} otherwise, {done.unknown} of no execution here; {done.closed} breaks closed.",
        *(f"{b.subject}: {b.cause}: ours {b.ours}, theirs {b.theirs}" for b in done.breaks[:SHOWN]),
        *(
            f"never confirmed: {e.broker_execution_id} {e.side} {text(e.quantity)} @ {text(e.price)}"
            for e in missing[:SHOWN]
        ),
    ]
