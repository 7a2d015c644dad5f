"""Reads of reference data and quotes."""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from django.conf import settings

from brokers.adapters.hosting import expected
from brokers.domain.calendars import SATURDAY, Calendar
from brokers.domain.fees import EXTENDED, REGULAR
from brokers.domain.reference import BrokerRef, InstrumentRef, ListingRef, QuoteRef
from brokers.domain.settlement import CURRENCY_CALENDARS, euro_bank_holiday, settles_on, us_bank_holiday, value_date
from brokers.models import Broker, FeeSchedule, Instrument, Listing
from oms.kernel.decimals import ZERO
from oms.kernel.errors import NotFound
from oms.kernel.json import rfc3339_or_none
from oms.runtime import sql

CACHE_SECONDS = 1.0
"""Reference data changes by an administrator's hand; a second later every process has seen it."""

CALENDAR_SECONDS = 300.0
"""Sessions are loaded months ahead."""

CURVE_DAYS, CURVE_DAYS_MIN, CURVE_PARTS_MAX = 20, 5, 48
"""Over how many days a volume curve is averaged, and how many of them must be known for it to count."""

T = TypeVar("T")
_volumes: dict[date, dict[int, Decimal]] = {}
_calendars: dict[str, tuple[float, Calendar | None]] = {}
_cache: dict[str, tuple[float, Any]] = {}


def _cached(name: str, load: Callable[[], T]) -> T:
    hit = _cache.get(name)
    now = time.monotonic()
    if hit is not None and hit[0] > now:
        return hit[1]
    value = load()
    _cache[name] = (now + CACHE_SECONDS, value)
    return value


def forget_cache() -> None:
    """Drop what this process remembers, for the operation that has just changed it."""
    _cache.clear()
    _calendars.clear()
    _volumes.clear()


def instruments() -> dict[int, InstrumentRef]:
    """Return all instruments by id."""
    fields = (
        "id", "symbol", "asset_class", "base_currency", "currency", "tick_size", "lot_size", "settlement_days", "active",
        "calendar", "sector", "country",
    )  # fmt: skip
    return _cached("instruments", lambda: {r[0]: InstrumentRef(*r) for r in Instrument.objects.values_list(*fields)})


def instruments_by_symbol() -> dict[str, InstrumentRef]:
    """Return all instruments by symbol."""
    return _cached("by_symbol", lambda: {i.symbol: i for i in instruments().values()})


def brokers() -> dict[int, BrokerRef]:
    """Return all brokers by id."""
    fields = ("id", "code", "adapter", "settings", "enabled")
    return _cached("brokers", lambda: {r[0]: BrokerRef(*r) for r in Broker.objects.order_by("id").values_list(*fields)})


def brokers_by_code() -> dict[str, BrokerRef]:
    """Return all brokers by code."""
    return _cached("by_code", lambda: {b.code: b for b in brokers().values()})


def listings() -> dict[tuple[int, int], ListingRef]:
    """Return all listings by (broker id, instrument id)."""
    fields = ("instrument_id", "broker_id", "symbol", "tick_size", "lot_size", "shortable", "active")
    return _cached("listings", lambda: {(r[1], r[0]): ListingRef(*r) for r in Listing.objects.values_list(*fields)})


def listed_as(broker_id: int) -> dict[str, int]:
    """Return the instruments of a broker by how it names them."""

    def load() -> dict[int, dict[str, int]]:
        found: dict[int, dict[str, int]] = {}
        for (broker, instrument_id), listing in listings().items():
            found.setdefault(broker, {})[listing.symbol] = instrument_id
        return found

    return _cached("listed_as", load).get(broker_id, {})


def fee_schedules() -> dict[tuple[int, str], list[tuple[date, list[dict[str, Any]]]]]:
    """Return fee items by (broker id, asset class), latest effective date first."""

    def load() -> dict[tuple[int, str], list[tuple[date, list[dict[str, Any]]]]]:
        found: dict[tuple[int, str], list[tuple[date, list[dict[str, Any]]]]] = {}
        rows = FeeSchedule.objects.order_by("-effective_from").values_list(
            "broker_id", "asset_class", "effective_from", "items"
        )
        for broker_id, asset_class, effective_from, items in rows:
            found.setdefault((broker_id, asset_class), []).append((effective_from, items))
        return found

    return _cached("fees", load)


def fee_items(broker_id: int, asset_class: str, on: date) -> list[dict[str, Any]]:
    """Return the fee items in force on a date; none agreed means none charged."""
    for effective_from, items in fee_schedules().get((broker_id, asset_class), []):
        if effective_from <= on:
            return items
    return []


def calendar(code: str) -> Calendar | None:
    """Return an exchange's calendar as loaded, None for a code that was never loaded."""
    if not code:
        return None
    held = _calendars.get(code)
    if held is None or held[0] < time.monotonic():
        held = _calendars[code] = (time.monotonic() + CALENDAR_SECONDS, _load_calendar(code))
    return held[1]


def settle_date(instrument: InstrumentRef, executed_at: datetime) -> date:
    """Return when a trade settles: by the cycle and the holidays of its exchange, or of both currencies of a pair."""
    if instrument.asset_class == "fx" and instrument.base_currency:
        pair = (instrument.base_currency, instrument.currency)
        return value_date(executed_at, instrument.settlement_days, pair, _banks_closed)
    return settles_on(
        executed_at,
        exchange=instrument.calendar,
        asset_class=instrument.asset_class,
        days=instrument.settlement_days,
        calendar=calendar(instrument.calendar),
    )


def _banks_closed(currency: str, day: date) -> bool:
    """Tell whether a currency's banks don't pay on a weekday; as far as its calendar was loaded."""
    if currency == "USD":
        return us_bank_holiday(day)
    if currency == "EUR":
        return euro_bank_holiday(day)
    kept = calendar(CURRENCY_CALENDARS.get(currency, ""))
    return kept is not None and kept.trades_on(day) is False and day.weekday() < SATURDAY


def calendars_needed() -> set[str]:
    """Return the codes of the calendars that instruments trade and settle by."""
    needed = {i.calendar for i in instruments().values()}
    for pair in (i for i in instruments().values() if i.asset_class == "fx"):
        needed |= {CURRENCY_CALENDARS.get(c, "") for c in (pair.base_currency, pair.currency)}
    return needed - {""}


def session_end(instrument_id: int, at: datetime) -> datetime | None:
    """Return when the session of an instrument's exchange closes that is open at a time; None where no hours are kept."""
    kept = hours(instrument_id)
    return kept.end_of_session(at) if kept else None


def session_of(instrument_id: int, at: datetime) -> str:
    """Return whether a time lies in the exchange's session or outside of it, as fee schedules tell them apart; what has no
    calendar never closes."""
    calendar = hours(instrument_id)
    return REGULAR if calendar is None or calendar.is_open(at) else EXTENDED


def hours(instrument_id: int) -> Calendar | None:
    """Return the sessions that an instrument trades in, None where it trades round the clock."""
    return calendar(instruments()[instrument_id].calendar) if settings.SESSIONS else None


def _load_calendar(code: str) -> Calendar | None:
    rows = sql.run(
        "SELECT day, opens_at, closes_at FROM brokers_tradingsession WHERE calendar = %s ORDER BY day", [code]
    ).fetchall()
    return Calendar(*map(list, zip(*rows, strict=True))) if rows else None


def quotes(instrument_ids: Iterable[int] | None = None) -> dict[int, QuoteRef]:
    """Return the latest quotes by instrument id, read now; an instrument without one is left out."""
    symbols = {i.id: i.symbol for i in instruments().values()}
    where = "" if instrument_ids is None else "WHERE instrument_id = ANY(%s)"
    found = sql.run(
        f"SELECT instrument_id, bid, ask, bid_size, ask_size, last, at, day_open FROM brokers_quote {where}",
        () if instrument_ids is None else [sorted(set(instrument_ids))],
    )
    return {r[0]: QuoteRef(r[0], symbols.get(r[0], ""), *r[1:]) for r in found}


def volume_now(instrument_id: int, at: datetime) -> tuple[datetime, Decimal]:
    """Return when the present bar of an instrument began, and what it holds: what was traded before now."""
    began = at.replace(second=0, microsecond=0)
    return began, volumes_since([(instrument_id, began)])[0]


def volumes_since(wanted: Sequence[tuple[int, datetime]]) -> list[Decimal]:
    """Return what was traded of instruments in the bars from one on, as far as anybody told; one statement."""
    if not wanted:
        return []
    found = sql.run(
        "SELECT coalesce(sum(b.volume), 0) FROM unnest(%s::bigint[], %s::timestamptz[]) WITH ORDINALITY u(id, began, n) "
        "LEFT JOIN brokers_bar b ON b.instrument_id = u.id AND b.at >= u.began GROUP BY u.n ORDER BY u.n",
        [[pk for pk, _ in wanted], [began for _, began in wanted]],
    )
    return [volume for (volume,) in found]


def usual_volumes(instrument_id: int, start: datetime, end: datetime) -> list[Decimal]:
    """Return what was traded in equal parts of this time of the day, summed over the last days; none where too few are known.

    The parts are minutes, or longer where there would be more than 48 of them.
    """
    seconds = (end - start).total_seconds()
    parts = min(max(int(seconds // 60), 1), CURVE_PARTS_MAX)
    found = sql.run(
        """
        SELECT floor(extract(epoch FROM b.at + make_interval(days => d) - %(start)s) / %(part)s::float8)::int AS part,
          sum(b.volume), array_agg(DISTINCT d)
        FROM generate_series(1, %(days)s) d JOIN brokers_bar b ON b.instrument_id = %(instrument)s
          AND b.at >= %(start)s - make_interval(days => d) AND b.at < %(end)s - make_interval(days => d)
        WHERE b.volume > 0 GROUP BY 1
        """,
        {"start": start, "end": end, "part": seconds / parts, "days": CURVE_DAYS, "instrument": instrument_id},
    ).fetchall()
    if len({day for _, _, days in found for day in days}) < CURVE_DAYS_MIN:
        return []
    volumes = {part: volume for part, volume, _ in found}
    return [volumes.get(i, ZERO) for i in range(parts)]


def daily_volumes(at: datetime) -> dict[int, Decimal]:
    """Return what is traded of instruments in a day, on the average of the last days known; as far as anybody told."""
    known = _volumes.get(at.date())
    if known is None:
        found = sql.run(
            "SELECT instrument_id, sum(volume) / count(DISTINCT (at AT TIME ZONE 'UTC')::date) FROM brokers_bar "
            "WHERE at >= %s AND at < %s AND volume > 0 GROUP BY 1",
            [at.date() - timedelta(days=CURVE_DAYS), at.date()],
        )
        known = dict(found.fetchall())
        _volumes.clear()
        _volumes[at.date()] = known
    return known


def close_of(instrument_id: int, at: datetime) -> Decimal | None:
    """Return the close of the day that a time lies in: of the exchange's session, else of the UTC day; None before it is over."""
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    row = sql.run(
        "SELECT close FROM brokers_bar WHERE instrument_id = %(id)s AND at < %(end)s AND at > %(at)s - interval '1 day' "
        "AND desk_clock() >= %(end)s ORDER BY at DESC LIMIT 1",
        {"id": instrument_id, "end": session_end(instrument_id, at) or midnight, "at": at},
    ).fetchone()
    return row[0] if row else None


def mids_at(wanted: Sequence[tuple[int, datetime]], within: timedelta) -> list[Decimal | None]:
    """Return the mids of (instrument id, time) pairs that were in force then, None where no tick so young is kept."""
    if not wanted:
        return []
    found = sql.run(
        "SELECT (SELECT (t.bid + t.ask) / 2 FROM brokers_quotetick t WHERE t.instrument_id = u.id AND t.at <= u.at "
        "AND t.at > u.at - %s ORDER BY t.at DESC LIMIT 1) "
        "FROM unnest(%s::bigint[], %s::timestamptz[]) WITH ORDINALITY u(id, at, n) ORDER BY u.n",
        [within, [i for i, _ in wanted], [t for _, t in wanted]],
    )
    return [mid for (mid,) in found]


def health() -> list[dict[str, Any]]:
    """Return every broker with the state of its session and of its breaker, by code."""
    found = sql.rows(
        "SELECT b.code, b.name, b.adapter, b.enabled, "
        "coalesce(s.connected AND s.lease_until > desk_clock(), false) AS connected, coalesce(h.failures_in_row, 0) AS failures_in_row, "
        "h.open_until, h.ack_ms, CASE WHEN h.open_until IS NULL THEN 'closed' WHEN h.open_until > desk_clock() THEN 'open' "
        "ELSE 'half_open' END AS breaker, f.broker_id IS NOT NULL AS numbered, f.epoch, f.next_out, s.cursor, f.state, f.detail, f.heard_at, "
        "f.wrote_at, f.gaps, f.garbled FROM brokers_broker b LEFT JOIN brokers_brokersession s ON s.broker_id = b.id "
        "LEFT JOIN brokers_fixsession f ON f.broker_id = b.id "
        "LEFT JOIN brokers_brokerhealth h ON h.broker_id = b.id ORDER BY b.code"
    )
    return [_with_session(row) for row in found]


_OF_SESSION = ("state", "detail", "next_out", "gaps", "garbled")


def _with_session(row: dict[str, Any]) -> dict[str, Any]:
    """Return a broker's row with its session's numbers apart, None where it has none."""
    session = {name: row.pop(name) for name in _OF_SESSION}
    epoch, cursor, numbered = row.pop("epoch"), row.pop("cursor"), row.pop("numbered")
    times = {name: rfc3339_or_none(row.pop(name)) for name in ("heard_at", "wrote_at")}
    told = session | {"next_in": expected(cursor, epoch or 0)} | times
    return {**row, "open_until": rfc3339_or_none(row["open_until"]), "session": told if numbered else None}


def health_of(code: str) -> dict[str, Any]:
    """Return one broker as `health` shows it, or raise `NotFound`."""
    row = next((b for b in health() if b["code"] == code), None)
    if row is None:
        raise NotFound("not_found", "There is no such broker.")
    return row
