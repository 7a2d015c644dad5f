"""Loading what a batch is judged by: seven statements for any number of orders."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings

from brokers import queries as brokers
from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef
from oms.kernel.decimals import ZERO
from oms.runtime import sql
from risk.domain.gate import Facts, HaltRef, Holding, LimitRef, duplicate_window, fingerprint
from risk.domain.intents import Intent
from risk.domain.scopes import Scope, scopes_of

Answer = Iterable[tuple[Any, ...]]
BRIDGE = "USD"
"""The currency that rates may be chained through."""


def load_facts(intents: Sequence[Intent], *, at: datetime) -> Facts:
    """Read limits, halts, quotes, holdings and cash for a batch, as of now.

    The caller holds the account rows locked, so that nothing read here about them moves before the commit. What does
    not depend on another answer is asked for at once, and read after that.
    """
    instruments = brokers.instruments()
    accounts = sorted({i.account_id for i in intents})
    asked_limits, asked_holdings, asked_cash = _ask_limits(intents, at), _ask_holdings(accounts), _ask_cash(accounts)
    asked_halts, asked_restricted = _ask_halts(), _ask_restricted({i.instrument.id for i in intents}, at)
    limits = [LimitRef(kind, value, currency, Scope(*scope)) for kind, value, currency, *scope in asked_limits]
    holdings = {(account_id, instrument_id): Holding(*held) for account_id, instrument_id, *held in asked_holdings}
    cash: dict[int, dict[str, Decimal]] = {}
    for account_id, currency, balance in asked_cash:
        cash.setdefault(account_id, {})[currency] = balance
    wanted = {i.instrument.id for i in intents} | {instrument_id for _, instrument_id in holdings}
    quotes = brokers.quotes(wanted | _pairs(instruments, intents, limits, cash, wanted))
    return Facts(
        at=at,
        instruments=instruments,
        quotes=quotes,
        rates=Rates(quotes, instruments),
        limits=limits,
        halts=[HaltRef(mode, Scope(kind, key)) for mode, kind, key in asked_halts],
        restricted={row[0] for row in asked_restricted},
        shortable=_shortable({i.instrument.id for i in intents if i.side == "sell_short"}),
        holdings=holdings,
        cash=cash,
        recent=_recent(intents, limits, at),
        sessions=settings.SESSIONS,
        closed=_closed({i.instrument.id: i.instrument for i in intents}, at) if settings.SESSIONS else set(),
    )


def _ask_limits(intents: Sequence[Intent], at: datetime) -> Answer:
    scopes = sorted({scope for i in intents for scope in scopes_of(i)})
    return sql.run(
        "SELECT l.kind, l.value, l.currency, l.scope_kind, l.scope_key FROM risk_limit l "
        "JOIN unnest(%s::varchar[], %s::varchar[]) u(kind, key) ON u.kind = l.scope_kind AND u.key = l.scope_key "
        "WHERE l.status = 'active' AND NOT l.soft AND l.effective_from <= %s",
        [[kind for kind, _ in scopes], [key for _, key in scopes], at],
    )


def _ask_halts() -> Answer:
    return sql.run("SELECT mode, scope_kind, scope_key FROM risk_halt WHERE released_at IS NULL")


def _ask_restricted(instrument_ids: set[int], at: datetime) -> Answer:
    return sql.run(
        "SELECT instrument_id FROM risk_restrictedinstrument "
        "WHERE instrument_id = ANY(%s) AND since <= %s AND (until IS NULL OR until > %s)",
        [sorted(instrument_ids), at, at],
    )


def _closed(instruments: Mapping[int, InstrumentRef], at: datetime) -> set[int]:
    """Return the instruments whose exchange is closed; one whose calendar was not loaded counts as closed."""
    closed = set()
    for pk, instrument in instruments.items():
        calendar = brokers.calendar(instrument.calendar)
        if instrument.calendar and not (calendar and calendar.is_open(at)):
            closed.add(pk)
    return closed


def _shortable(instrument_ids: set[int]) -> set[tuple[str, int]]:
    if not instrument_ids:
        return set()
    lenders = {
        (broker.code, instrument_id)
        for broker in brokers.brokers().values()
        for instrument_id in instrument_ids
        if (listing := brokers.listings().get((broker.id, instrument_id)))
        and broker.enabled and listing.active and listing.shortable
    }  # fmt: skip
    return lenders | {("", instrument_id) for _, instrument_id in lenders}


def _ask_holdings(accounts: list[int]) -> Answer:
    return sql.run(
        """
        SELECT account_id, instrument_id, sum(quantity), sum(buying), sum(selling), sum(amount)
        FROM (
          SELECT account_id, instrument_id, quantity, 0 AS buying, 0 AS selling, 0 AS amount
          FROM portfolio_position WHERE account_id = ANY(%(accounts)s) AND quantity <> 0
          UNION ALL
          SELECT account_id, instrument_id, 0, buying, selling, amount
          FROM risk_exposure WHERE account_id = ANY(%(accounts)s) AND buying + selling + amount > 0
        ) held
        GROUP BY account_id, instrument_id
        """,
        {"accounts": accounts},
    )


def _ask_cash(accounts: list[int]) -> Answer:
    return sql.run(
        "SELECT account_id, currency, balance FROM portfolio_cashbalance WHERE account_id = ANY(%s) AND balance <> 0",
        [accounts],
    )


def _pairs(
    instruments: Mapping[int, InstrumentRef],
    intents: Sequence[Intent],
    limits: Sequence[LimitRef],
    cash: Mapping[int, Mapping[str, Decimal]],
    instrument_ids: set[int],
) -> set[int]:
    """Return the instruments whose prices are rates between the currencies that the batch touches."""
    currencies = {BRIDGE, *(i.base_currency for i in intents), *(x.currency for x in limits)}
    currencies |= {currency for balances in cash.values() for currency in balances}
    currencies |= {instruments[i].currency for i in instrument_ids if i in instruments}
    return {i.id for i in instruments.values() if i.base_currency in currencies and i.currency in currencies}


def _recent(intents: Sequence[Intent], limits: list[LimitRef], at: datetime) -> set[bytes]:
    since: dict[bytes, datetime] = {}
    for intent in intents:
        scopes = scopes_of(intent)
        window = duplicate_window(intent, [x for x in limits if (x.scope.kind, x.scope.key) in scopes])
        if window > ZERO:
            since[fingerprint(intent)] = at - timedelta(seconds=float(window))
    if not since:
        return set()
    found = sql.run(
        "SELECT DISTINCT h.fingerprint FROM risk_hold h "
        "JOIN unnest(%s::bytea[], %s::timestamptz[]) u(fingerprint, since) ON u.fingerprint = h.fingerprint "
        "WHERE h.created_at > u.since",
        [list(since), list(since.values())],
    )
    return {bytes(row[0]) for row in found}
