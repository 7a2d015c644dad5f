"""Writes of quotes, raw messages, sessions and broker health."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256

from brokers import queries
from brokers.domain.reference import InstrumentRef
from brokers.models import Instrument, Listing, RawMessage, TradingSession
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, InvalidFields
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.constraints import refine
from oms.runtime.transactions import after_commit, require_transaction

BREAKER_FAILURES = 3
BREAKER_SECONDS = 5.0
QUOTES_MAX = 1_000
_STEP = Decimal("1E-10")
FRESH_SECONDS = 5.0
"""An older quote tells nothing about the minute."""
LEFT_ALONE_SECONDS = 60.0
"""How long the demo market keeps off a quote that was posted or replayed."""


@dataclass(frozen=True, slots=True)
class QuoteUpdate:
    """A new market for one symbol."""

    symbol: str
    bid: Decimal
    ask: Decimal
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None
    last: Decimal | None = None
    at: datetime | None = None
    source_at: datetime | None = None
    volume: Decimal | None = None  # units traded since the update before


def record_quotes(updates: Sequence[QuoteUpdate], *, source: str, at: datetime) -> int:
    """Store the newest market of each symbol; an update older than what is stored changes nothing,
    nor does the demo market (`source` market) within a minute after a quote from outside.

    Raises `InvalidFields` (nothing stored) when a symbol is unknown or a market is crossed or not positive.
    Returns the number of instruments that moved. One statement, and another for volumes where some are told.
    """
    known = queries.instruments_by_symbol()
    errors = [e for i, u in enumerate(updates) for e in _faults(i, u, known)]
    if errors:
        raise InvalidFields(errors)
    latest = {u.symbol: u for u in sorted(updates, key=lambda u: u.at or at)}
    traded: dict[str, Decimal] = {}
    for update in updates:
        if update.volume:
            traded[update.symbol] = traded.get(update.symbol, decimals.ZERO) + update.volume
    stored = _store_quotes(latest, known, source=source, at=at)
    record_volumes(traded, at=at)
    return stored


def _store_quotes(
    latest: Mapping[str, QuoteUpdate], known: Mapping[str, InstrumentRef], *, source: str, at: datetime
) -> int:
    chosen = sorted(latest.values(), key=lambda u: known[u.symbol].id)
    return sql.run(
        """
        INSERT INTO brokers_quote AS q (instrument_id, bid, ask, bid_size, ask_size, last, at, source, source_at, day_open)
        SELECT i, b, a, bs, asz, l, t, %s, st, (b + a) / 2
        FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[],
                    %s::timestamptz[], %s::timestamptz[]) u(i, b, a, bs, asz, l, t, st)
        ON CONFLICT (instrument_id) DO UPDATE SET
          bid = EXCLUDED.bid, ask = EXCLUDED.ask, bid_size = EXCLUDED.bid_size, ask_size = EXCLUDED.ask_size,
          last = coalesce(EXCLUDED.last, q.last), at = EXCLUDED.at, source = EXCLUDED.source, source_at = EXCLUDED.source_at,
          day_open = CASE WHEN (EXCLUDED.at AT TIME ZONE 'UTC')::date > (q.at AT TIME ZONE 'UTC')::date
                     THEN EXCLUDED.day_open ELSE q.day_open END
        WHERE EXCLUDED.at >= q.at
          AND NOT (EXCLUDED.source = 'market' AND q.source <> 'market' AND q.at > EXCLUDED.at - make_interval(secs => %s))
        """,
        [
            source,
            [known[u.symbol].id for u in chosen],
            [u.bid for u in chosen],
            [u.ask for u in chosen],
            [u.bid_size for u in chosen],
            [u.ask_size for u in chosen],
            [u.last for u in chosen],
            [u.at or at for u in chosen],
            [u.source_at for u in chosen],
            LEFT_ALONE_SECONDS,
        ],
    ).rowcount


_MIDS = """
SELECT q.instrument_id, date_trunc('minute', %(at)s::timestamptz), round((q.bid + q.ask) / 2, 10) AS mid, {volume}
FROM brokers_quote q {whose} ORDER BY q.instrument_id
"""
_BARS = """
INSERT INTO brokers_bar AS b (instrument_id, at, open, high, low, close, volume)
SELECT instrument_id, date_trunc, mid, mid, mid, mid, volume FROM ({mids}) m
ON CONFLICT (instrument_id, at) DO UPDATE SET high = greatest(b.high, EXCLUDED.high), low = least(b.low, EXCLUDED.low),
  close = EXCLUDED.close, volume = b.volume + EXCLUDED.volume
"""
_SAMPLE = _BARS.format(
    mids=_MIDS.format(volume="0 AS volume", whose="WHERE q.at > %(at)s::timestamptz - make_interval(secs => %(fresh)s)")
)
_TRADED = _BARS.format(
    mids=_MIDS.format(
        volume="u.volume",
        whose="JOIN unnest(%(ids)s::bigint[], %(volumes)s::numeric[]) u(id, volume) ON u.id = q.instrument_id",
    )
)


def sample_bars(*, at: datetime) -> None:
    """Bring the bars of this minute up to what is quoted now; of instruments whose quote is old nothing is kept."""
    sql.run(_SAMPLE, {"at": at, "fresh": FRESH_SECONDS})


def record_volumes(traded: Mapping[str, Decimal], *, at: datetime) -> None:
    """Add what was traded, by symbol, to the bars of this minute; of what was never quoted nothing is kept."""
    if not traded:
        return
    known = queries.instruments_by_symbol()
    volumes = {known[symbol].id: volume for symbol, volume in traded.items()}
    sql.run(_TRADED, {"at": at, "ids": sorted(volumes), "volumes": [volumes[i] for i in sorted(volumes)]})


def _faults(index: int, update: QuoteUpdate, known: Container[str]) -> list[Invalid]:
    faults = []
    if update.symbol not in known:
        faults.append(Invalid("unknown_symbol", "No such instrument.", field=f"{index}.symbol"))
    if not (decimals.ZERO < update.bid < decimals.BOUND and decimals.ZERO < update.ask < decimals.BOUND):
        faults.append(Invalid("not_positive", "Bid and ask must be above zero.", field=f"{index}.bid"))
    elif update.bid > update.ask:
        faults.append(Invalid("crossed_quote", "The bid is above the ask.", field=f"{index}.bid"))
    for name, least in (
        ("bid_size", decimals.ZERO),
        ("ask_size", decimals.ZERO),
        ("last", _STEP),
        ("volume", decimals.ZERO),
    ):
        value = getattr(update, name)
        if value is not None and not least <= value < decimals.BOUND:
            faults.append(Invalid("out_of_range", f"The {name} must not be below zero.", field=f"{index}.{name}"))
    return faults


TICKS_KEPT = timedelta(hours=36)
"""How long ticks stay: a day's fills can be measured again until the next evening."""


def sample_ticks() -> int:
    """Keep what is quoted now and was not a moment ago; return of how many instruments. One statement."""
    return sql.run(
        "INSERT INTO brokers_quotetick (instrument_id, at, bid, ask) SELECT q.instrument_id, q.at, q.bid, q.ask "
        "FROM brokers_quote q LEFT JOIN LATERAL (SELECT t.at FROM brokers_quotetick t "
        "WHERE t.instrument_id = q.instrument_id ORDER BY t.at DESC LIMIT 1) last ON true "
        "WHERE last.at IS NULL OR last.at < q.at ON CONFLICT DO NOTHING"
    ).rowcount


def prune_ticks(*, at: datetime) -> int:
    """Drop ticks that are older than anybody measures; return how many."""
    return sql.run("DELETE FROM brokers_quotetick WHERE at < %s", [at - TICKS_KEPT]).rowcount


Sessions = list[tuple[str, date, datetime, datetime]]


def published_sessions(codes: Sequence[str], *, since: date, until: date) -> Sessions:
    """Return (calendar, day, opening, closing) of exchanges between two days, as they are published.

    Raises `Invalid` for a code that nobody publishes. It takes seconds and much memory: never in a serving process.
    """
    import exchange_calendars  # noqa: PLC0415 - it brings all of pandas along

    rows: Sessions = []
    for code in codes:
        try:
            found = exchange_calendars.get_calendar(code, start=since.isoformat(), end=until.isoformat())
        except exchange_calendars.errors.InvalidCalendarName as error:
            raise Invalid("unknown_calendar", f"No exchange calendar is named {code}.", field="calendar") from error
        rows += [
            (code, day.date(), opens.to_pydatetime(), closes.to_pydatetime())
            for day, opens, closes in zip(found.sessions, found.opens, found.closes, strict=True)
        ]
    return rows


def store_sessions(rows: Sessions) -> None:
    """Store sessions, in place of what was known of their days; one statement."""
    sets = "opens_at = EXCLUDED.opens_at, closes_at = EXCLUDED.closes_at"
    sql.insert_values(
        TradingSession,
        ("calendar", "day", "opens_at", "closes_at"),
        rows,
        on_conflict=f"ON CONFLICT (calendar, day) DO UPDATE SET {sets}",
    )
    queries.forget_cache()


def place_venue(broker_id: int, host: str, port: int) -> None:
    """Write down where a simulated broker listens, for those who connect to it."""
    sql.run(
        "UPDATE brokers_broker SET settings = settings || jsonb_build_object('host', %s::text, 'port', %s::int) WHERE id = %s",
        [host, port, broker_id],
    )
    queries.forget_cache()


def keep_raw(broker_id: int, messages: Sequence[tuple[bytes, int | None, str]], *, at: datetime) -> None:
    """Keep bytes as received, with their sequence and, where they could not be read, the error. Repeats are kept once."""
    names = ("id", "broker_id", "sequence", "digest", "raw", "error", "received_at")
    rows = [(uuid7(), broker_id, number, sha256(raw).digest(), raw, error, at) for raw, number, error in messages]
    sql.insert_values(RawMessage, names, rows, on_conflict="ON CONFLICT (broker_id, digest) DO NOTHING")


def note_sending(broker_id: int, *, reached: bool, ack_ms: float | None, at: datetime) -> None:
    """Fold one call's outcome into the broker's health; repeated failures open its breaker for a few seconds."""
    sql.run(
        """
        INSERT INTO brokers_brokerhealth AS h (broker_id, failures_in_row, open_until, ack_ms, updated_at)
        VALUES (%(broker)s, %(failed)s, NULL, %(ms)s::float8, %(at)s)
        ON CONFLICT (broker_id) DO UPDATE SET
          failures_in_row = CASE WHEN %(failed)s::int = 0 THEN 0 ELSE h.failures_in_row + 1 END,
          open_until = CASE WHEN %(failed)s::int = 0 THEN NULL
                       WHEN h.failures_in_row + 1 >= %(max)s THEN %(until)s::timestamptz ELSE h.open_until END,
          ack_ms = CASE WHEN %(ms)s::float8 IS NULL THEN h.ack_ms ELSE coalesce(h.ack_ms * 0.9 + %(ms)s::float8 * 0.1, %(ms)s::float8) END,
          updated_at = %(at)s
        """,
        {
            "broker": broker_id,
            "failed": 0 if reached else 1,
            "ms": ack_ms,
            "at": at,
            "max": BREAKER_FAILURES,
            "until": at + timedelta(seconds=BREAKER_SECONDS),
        },
    )


def begin_probe(broker_id: int, *, at: datetime) -> bool:
    """Take the one probe of a broker whose breaker is half open: it failed, and has rested since. True for who may ask it.

    The breaker stays open meanwhile; `note_sending` closes it, or lets it rest again.
    """
    taken = sql.run(
        "UPDATE brokers_brokerhealth SET open_until = %s, updated_at = %s "
        "WHERE broker_id = %s AND failures_in_row >= %s AND open_until <= %s",
        [at + timedelta(seconds=BREAKER_SECONDS), at, broker_id, BREAKER_FAILURES, at],
    )
    return bool(taken.rowcount)


def rename(instrument_id: int, *, to: str, actor: Actor, at: datetime) -> None:
    """Give an instrument another symbol, and to its listings that bore the old one; all that is booked stays with it.

    Raises `Conflict` for a symbol that is taken.
    """
    require_transaction()
    instrument = Instrument.objects.select_for_update().get(pk=instrument_id)
    old = instrument.symbol
    with refine(brokers_instrument_symbol_key=Conflict("symbol_taken", "There is an instrument of that symbol.")):
        instrument.symbol = to
        instrument.save(update_fields=["symbol"])
    Listing.objects.filter(instrument_id=instrument_id, symbol=old).update(symbol=to)
    _tell(instrument_id, "instrument.renamed", {"before": old, "after": to}, actor=actor, at=at)


def set_active(instrument_id: int, *, active: bool, actor: Actor, at: datetime) -> None:
    """Let an instrument be traded, or no longer."""
    require_transaction()
    instrument = Instrument.objects.select_for_update().get(pk=instrument_id)
    if instrument.active != active:
        instrument.active = active
        instrument.save(update_fields=["active"])
        _tell(instrument_id, "instrument.listed" if active else "instrument.delisted", {}, actor=actor, at=at)


def _tell(instrument_id: int, kind: str, data: dict[str, str], *, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": {"instrument": instrument_id, **data}})
    journal.append([Entry(SYSTEM_STREAM, kind, str(instrument_id), body)], actor=actor, at=at)
    queries.forget_cache()
    after_commit(queries.forget_cache)
