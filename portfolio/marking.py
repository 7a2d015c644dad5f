"""Marking positions to the market, for the screens."""

from datetime import UTC, datetime

from brokers import queries as brokers
from oms.kernel import json
from oms.kernel.batching import group_by
from oms.runtime import live
from portfolio import queries
from portfolio.models import Account, Position

FIELDS = ("symbol", "market_price", "unrealized_pnl", "day_pnl", "price_at", "stale")


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
