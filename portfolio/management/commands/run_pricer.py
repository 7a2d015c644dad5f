"""Mark positions to the market and push the marks to the screens."""

import signal
import threading
from datetime import UTC, datetime
from typing import Any

import structlog
from django.core.management.base import BaseCommand
from django.db import InterfaceError, OperationalError, connection

from brokers import queries as brokers
from oms.kernel import json
from oms.kernel.batching import group_by
from oms.runtime import live
from portfolio import queries
from portfolio.models import Account, Position

INTERVAL_SECONDS = 0.25
FIELDS = ("symbol", "market_price", "unrealized_pnl", "day_pnl", "price_at", "stale")
log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """Four times a second: quotes that moved, positions that they move, one frame an account."""

    help = "Push live P&L. Safe to run twice; marks are the latest that wins."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        seen: dict[int, datetime] = {}
        while not stop.wait(INTERVAL_SECONDS):
            try:
                seen = mark(seen)
            except (OperationalError, InterfaceError) as error:
                log.warning("database_lost", error=str(error).strip())
                connection.close()


def mark(seen: dict[int, datetime]) -> dict[int, datetime]:
    """Publish marks for positions whose quote is newer than what was seen; return what is seen now."""
    times = {pk: q.at for pk, q in brokers.quotes().items()}
    moved = [pk for pk, at in times.items() if seen.get(pk) != at]
    pairs = list(
        Position.objects.filter(instrument_id__in=moved)
        .exclude(quantity=0)
        .order_by("account_id", "instrument_id")
        .values_list("account_id", "instrument_id")
    )
    if pairs:
        codes = dict(Account.objects.values_list("id", "code"))
        rows = list(zip(pairs, queries.positions_out(pairs), strict=True))
        frames = []
        for account_id, group in group_by(rows, lambda r: r[0][0]).items():
            data = [{f: row[f] for f in FIELDS} for _, row in group]
            code = codes[account_id]
            frames.append((code, json.dumps({"type": "mark", "account": code, "data": data, "at": datetime.now(UTC)})))
        live.publish_marks(frames)
    return times
