"""Feed recorded quotes into the desk, with the gaps they had."""

import argparse
import csv
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers import queries
from brokers.operations import QuoteUpdate, record_quotes
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import DomainError, InvalidFields
from oms.runtime.commands import actor_named, add_options, tell
from oms.runtime.transactions import in_transaction

BATCH_SECONDS = 0.05
"""Quotes due within this of each other go in with one statement."""


SIZE_PLACES = Decimal("0.0000000001")


class Command(BaseCommand):
    """`replay_quotes FILE --speed 10`: CSV with symbol, at, bid, ask[, bid_size, ask_size, volume]."""

    help = "Replay recorded quotes; `at` is moved to now with the gaps kept, `source_at` keeps the original."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the file and the speed."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than it was")
        parser.add_argument("--limit", type=int, default=0, help="stop after so many quotes")
        add_options(parser, changes=True, role="ops or admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Replay to the end of the file."""
        if options["speed"] <= 0:
            raise CommandError("--speed must be above zero.", returncode=2)
        actor = actor_named(options["user"], "ops", "admin")
        try:
            if options["dry_run"]:
                count = sum(1 for _ in read(options["file"]))
            else:
                count = self._replay(options["file"], options["speed"], options["limit"])
                _tell_journal(options["file"], count, actor=actor, at=datetime.now(UTC))
        except OSError as error:
            raise CommandError(str(error), returncode=2) from error
        except InvalidFields as error:
            raise CommandError("; ".join(f"{e.field}: {e.detail}" for e in error.errors[:5]), returncode=2) from error
        done = "can be replayed" if options["dry_run"] else "replayed"
        tell(self, options, {"quotes": count, "dry_run": options["dry_run"]}, f"{count} quotes {done}.")

    def _replay(self, file: Path, speed: float, limit: int) -> int:
        count, began, first = 0, time.monotonic(), None
        batch: list[QuoteUpdate] = []
        for update in read(file):
            assert update.source_at is not None  # noqa: S101 - read sets it
            first = first or update.source_at
            due = (update.source_at - first).total_seconds() / speed
            wait = began + due - time.monotonic()
            if wait > BATCH_SECONDS or len(batch) >= 500:
                self._record(batch)
                batch = []
                time.sleep(max(wait, 0))
            batch.append(update)
            count += 1
            if limit and count >= limit:
                break
        self._record(batch)
        return count

    def _record(self, batch: list[QuoteUpdate]) -> None:
        if batch:
            at = datetime.now(UTC)
            stamped = [
                QuoteUpdate(
                    u.symbol,
                    u.bid,
                    u.ask,
                    u.bid_size,
                    u.ask_size,
                    u.last,
                    at + timedelta(microseconds=n),
                    u.source_at,
                    u.volume,
                )
                for n, u in enumerate(batch)
            ]
            record_quotes(stamped, source="replay", at=at)


@in_transaction
def _tell_journal(file: Path, count: int, *, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": {"file": file.name, "quotes": count}})
    journal.append([Entry(SYSTEM_STREAM, "quotes.replayed", file.name[:64], body)], actor=actor, at=at)


def read(file: Path) -> Iterator[QuoteUpdate]:
    """Yield the quotes of a CSV file; a bad line is told with its number, and nothing after it is replayed."""
    known = queries.instruments_by_symbol()
    with file.open(newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=2):
            try:
                symbol = row["symbol"]
                if symbol not in known:
                    raise CommandError(f"line {number}: unknown symbol {symbol!r}", returncode=2)
                sizes = [_size(row.get(n)) for n in ("bid_size", "ask_size", "volume")]
                at = datetime.fromisoformat(row["at"])
                yield QuoteUpdate(
                    symbol, _price(row["bid"]), _price(row["ask"]), sizes[0], sizes[1], source_at=at.astimezone(UTC),
                    volume=sizes[2],
                )  # fmt: skip
            except (KeyError, ValueError, ArithmeticError, DomainError) as error:
                raise CommandError(f"line {number}: {error}", returncode=2) from error


def _price(text: str) -> Decimal:
    return decimals.parse(text)


def _size(text: str | None) -> Decimal | None:
    """Return a size to the places we keep: recorders that counted in binary leave a tail that means nothing."""
    if not text:
        return None
    size = Decimal(text)
    if not size.is_finite() or size < 0:
        raise ValueError(f"{text!r} is no size")
    return size.quantize(SIZE_PLACES)
