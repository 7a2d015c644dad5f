"""Loading what a batch is judged by: seven statements for any number of orders, and one for each kind of limit set that
asks for more."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings

from brokers import queries as brokers
from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef
from oms.kernel.decimals import ZERO
from oms.runtime import sql
from risk.domain.exposures import Holding, Working
from risk.domain.gate import Facts, HaltRef, MandateRef, fingerprint
from risk.domain.intents import Intent
from risk.domain.limits import LimitRef, LimitSet
from risk.domain.measures import CUTOFFS, PACED
from risk.domain.pacing import Pace, PaceKey, seconds_between
from risk.domain.results import Result
from risk.domain.scopes import Scope, scopes_of
from risk.domain.selftrade import Resting
from risk.queries.compliance import rules_for_orders
from risk.queries.rules import add_what_rules_ask, ask_rules, rules_of_row
from risk.queries.summing import load_sums

Answer = Iterable[tuple[Any, ...]]
RestingOrders = Callable[[Sequence[int]], Iterable[Resting]]
RECENT = timedelta(minutes=30)
"""How far `volume_recent` looks back."""
BRIDGE = "USD"
"""The currency that rates may be chained through."""


def load_facts(
    intents: Sequence[Intent],
    *,
    at: datetime,
    resting: RestingOrders | None = None,
    locking: bool = True,
    told: Sequence[LimitRef] | None = None,
) -> Facts:
    """Read limits, halts, quotes, holdings and cash for a batch, as of now.

    The caller holds the account rows locked, so that nothing read here about them moves before the commit. What does
    not depend on another answer is asked for at once, and read after that. `resting` returns the orders of accounts that
    may be filled at any moment; it is called only where an order is to trade with none of them. Limits on sums over accounts
    lock those, unless nothing is to be reserved (`locking`). `told` are limits to look at instead of those that bind, with
    all that their sums are made of.
    """
    instruments = brokers.instruments()
    accounts = sorted({i.account_id for i in intents})
    asked_limits, asked_holdings, asked_cash = _ask_limits(intents, at), _ask_holdings(accounts), _ask_cash(accounts)
    asked_halts, asked_restricted = _ask_halts(), _ask_restricted({i.instrument.id for i in intents}, at)
    asked_mandates = sql.run("SELECT scope_kind, scope_key, dimension, allowed FROM risk_mandate ORDER BY id")
    asked_rules = ask_rules(accounts, at)
    limits = [_limit(*row) for row in asked_limits] if told is None else list(told)
    rules = {account_id: rules_of_row(*row) for account_id, *row in asked_rules}
    aggregate = [x for x in limits if x.aggregate]
    sums = load_sums(aggregate, intents, locking=locking, whole=told is not None) if aggregate else {}
    more = _ask_more({x.kind for x in limits if not x.aggregate}, accounts, at)
    holdings = {(account_id, instrument_id): Holding(*held) for account_id, instrument_id, *held in asked_holdings}
    cash: dict[int, dict[str, Decimal]] = {}
    for account_id, currency, balance in asked_cash:
        cash.setdefault(account_id, {})[currency] = balance
    results = {account_id: [Result(*part) for part in parts] for account_id, parts in _grouped(more.results)}
    wanted = {i.instrument.id for i in intents} | {instrument_id for _, instrument_id in holdings}
    wanted |= {instrument_id for summed in sums.values() for instrument_id in summed.totals}
    wanted |= {part.instrument_id for parts in results.values() for part in parts if part.quantity or part.day_quantity}
    quotes = brokers.quotes(wanted | _pairs(instruments, intents, limits, cash, wanted))
    listed = list(asked_restricted)
    facts = Facts(
        at=at,
        instruments=instruments,
        quotes=quotes,
        rates=Rates(quotes, instruments),
        limits=limits,
        halts=[HaltRef(mode, Scope(kind, key)) for mode, kind, key in asked_halts],
        restricted={pk for pk, watched, _ in listed if not watched},
        watched={pk: since for pk, watched, since in listed if watched},
        mandates=[MandateRef(Scope(kind, key), *rest) for kind, key, *rest in asked_mandates],
        shortable=_shortable({i.instrument.id for i in intents if i.side == "sell_short"}),
        holdings=holdings,
        cash=cash,
        recent=_recent(intents, limits, at),
        sessions=settings.SESSIONS,
        closed=_closed({i.instrument.id: i.instrument for i in intents}, at) if settings.SESSIONS else set(),
        results=results,
        peaks=dict(more.peaks),
        paces=_paces(more.paces),
        open_orders=Counter({tuple(key): count for *key, count in more.open_orders}),
        by_strategy=_by_strategy(more.by_strategy),
        rules=rules,
        sums=sums,
        sets=_sets({i.oco for i in intents if i.oco is not None}),
    )
    facts.compliance = rules_for_orders(at.date())
    kinds = {x.kind for x in limits}
    if "volume_recent" in kinds:
        ids = sorted({i.instrument.id for i in intents})
        facts.traded = dict(zip(ids, brokers.volumes_since([(pk, at - RECENT) for pk in ids]), strict=True))
    if "volume_daily" in kinds:
        facts.traded_daily = brokers.daily_volumes(at)
    if rules:
        add_what_rules_ask(facts, intents)
    watching = {
        i.account_id for i in intents if i.self_trade or (i.account_id in rules and rules[i.account_id].self_trade)
    }
    if watching and resting is not None:
        facts.resting = list(resting(sorted(watching)))
    if settings.SESSIONS and any(x.kind in CUTOFFS for x in limits):
        facts.auctions = _auctions(intents, at)
    return facts


def _ask_limits(intents: Sequence[Intent], at: datetime) -> Answer:
    """Ask for the limits that may bind, of each scope and kind the one that began last."""
    scopes = sorted({scope for i in intents for scope in scopes_of(i)})
    return sql.run(
        """
        WITH named AS (SELECT * FROM unnest(%s::varchar[], %s::varchar[]) u(kind, key)),
        bound AS (
          SELECT kind AS scope_kind, key AS scope_key, NULL::varchar AS member_kind, NULL::varchar AS member_key FROM named
          UNION ALL
          SELECT 'group', g.code, m.kind, m.key FROM risk_groupmember m JOIN named USING (kind, key)
          JOIN risk_group g ON g.id = m.group_id
        )
        SELECT DISTINCT ON (l.scope_kind, l.scope_key, l.kind, l.soft, l.aggregate, b.member_kind, b.member_key)
          l.kind, l.value, l.currency, l.scope_kind, l.scope_key, l.soft, b.member_kind, b.member_key, l.aggregate
        FROM risk_limit l JOIN bound b USING (scope_kind, scope_key)
        WHERE l.status IN ('active', 'approved') AND l.effective_from <= %s
        ORDER BY l.scope_kind, l.scope_key, l.kind, l.soft, l.aggregate, b.member_kind, b.member_key, l.effective_from DESC, l.id DESC
        """,
        [[kind for kind, _ in scopes], [key for _, key in scopes], at],
    )


def every_limit(at: datetime) -> list[LimitRef]:
    """Return every limit in force, one of a group once for each of its members."""
    found = sql.run(
        """
        SELECT DISTINCT ON (l.scope_kind, l.scope_key, l.kind, l.soft, l.aggregate, m.kind, m.key)
          l.kind, l.value, l.currency, l.scope_kind, l.scope_key, l.soft, m.kind, m.key, l.aggregate
        FROM risk_limit l LEFT JOIN risk_group g ON l.scope_kind = 'group' AND g.code = l.scope_key
        LEFT JOIN risk_groupmember m ON m.group_id = g.id
        WHERE l.status IN ('active', 'approved') AND l.effective_from <= %s
        ORDER BY l.scope_kind, l.scope_key, l.kind, l.soft, l.aggregate, m.kind, m.key, l.effective_from DESC, l.id DESC
        """,
        [at],
    )
    return [_limit(*row) for row in found]


def _auctions(intents: Sequence[Intent], at: datetime) -> dict[tuple[int, str], Decimal]:
    """Return the seconds until the next opening and the next close of the instruments that have any."""
    found = {}
    for intent in intents:
        kept = brokers.calendar(intent.instrument.calendar)
        opening, close = (kept.next_open(at), kept.next_close(at)) if kept else (None, None)
        for time_in_force, moment in (("opg", opening), ("cls", close)):
            if moment is not None:
                found[intent.instrument.id, time_in_force] = seconds_between(at, moment)
    return found


def _limit(
    kind: str,
    value: Decimal,
    currency: str,
    scope: str,
    key: str,
    soft: bool,
    member: str | None,
    member_key: str | None,
    aggregate: bool,
) -> LimitRef:
    whom = Scope(member, member_key or "") if member else None
    return LimitRef(kind, value, currency, Scope(scope, key), soft, whom, aggregate)


@dataclass(slots=True)
class _More:
    """Answers to what only some kinds of limits ask for; empty where none is set."""

    results: Answer = ()
    peaks: Answer = ()
    paces: Answer = ()
    open_orders: Answer = ()
    by_strategy: Answer = ()


def _ask_more(kinds: set[str], accounts: list[int], at: datetime) -> _More:
    more = _More()
    if kinds & {"daily_loss", "drawdown"}:
        more.results = _ask_results(accounts, at)
    if "drawdown" in kinds:
        more.peaks = sql.run("SELECT account_id, value FROM risk_profitpeak WHERE account_id = ANY(%s)", [accounts])
    if kinds & PACED:
        more.paces = sql.run(
            "SELECT account_id, kind, scope_kind, scope_key, level, at FROM risk_pace WHERE account_id = ANY(%s)",
            [accounts],
        )
    if "open_orders" in kinds:
        more.open_orders = sql.run(
            "SELECT account_id, instrument_id, user_id, strategy_id, count(*) FROM risk_hold "
            "WHERE open_quantity > 0 AND account_id = ANY(%s) GROUP BY 1, 2, 3, 4",
            [accounts],
        )
    if "concentration_strategy" in kinds:
        more.by_strategy = _ask_by_strategy(accounts)
    return more


def _ask_results(accounts: list[int], at: datetime) -> Answer:
    """Ask what each position won or lost; the day is the UTC day."""
    return sql.run(
        "SELECT account_id, instrument_id, quantity, cost, realized, fees, "
        "CASE WHEN day = %(day)s THEN day_quantity ELSE 0 END, CASE WHEN day = %(day)s THEN day_amount ELSE 0 END "
        "FROM portfolio_position WHERE account_id = ANY(%(accounts)s)",
        {"day": at.date(), "accounts": accounts},
    )


def _ask_by_strategy(accounts: list[int]) -> Answer:
    """Ask what is held and worked for each strategy; lots bear the strategy of the trade that opened them."""
    return sql.run(
        """
        SELECT account_id, strategy_id, instrument_id, sum(quantity), sum(buying), sum(selling)
        FROM (
          SELECT l.account_id, t.strategy_id, l.instrument_id, l.remaining AS quantity, 0 AS buying, 0 AS selling
          FROM portfolio_lot l JOIN portfolio_trade t ON t.id = l.trade_id
          WHERE l.account_id = ANY(%(accounts)s) AND l.remaining <> 0 AND t.strategy_id IS NOT NULL
          UNION ALL
          SELECT account_id, strategy_id, instrument_id, 0,
            coalesce(max(open_quantity) FILTER (WHERE side = 'buy'), 0), coalesce(max(open_quantity) FILTER (WHERE side <> 'buy'), 0)
          FROM risk_hold WHERE account_id = ANY(%(accounts)s) AND open_quantity > 0 AND strategy_id IS NOT NULL
          GROUP BY account_id, strategy_id, instrument_id, coalesce(oco, id)
        ) held
        GROUP BY account_id, strategy_id, instrument_id
        """,
        {"accounts": accounts},
    )


def _grouped(rows: Answer) -> Iterable[tuple[int, list[tuple[Any, ...]]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for account_id, *rest in rows:
        found.setdefault(account_id, []).append(tuple(rest))
    return found.items()


def _paces(rows: Answer) -> dict[PaceKey, Pace]:
    return {(account_id, kind, scope, key): Pace(level, at) for account_id, kind, scope, key, level, at in rows}


def _by_strategy(rows: Answer) -> dict[tuple[int, int], dict[int, Holding]]:
    found: dict[tuple[int, int], dict[int, Holding]] = {}
    for account_id, strategy_id, instrument_id, quantity, buying, selling in rows:
        found.setdefault((account_id, strategy_id), {})[instrument_id] = Holding(quantity, buying, selling)
    return found


def _sets(wanted: set[UUID]) -> dict[UUID, dict[UUID, Working]]:
    """Return what works of each set in which one order cancels the others."""
    if not wanted:
        return {}
    found: dict[UUID, dict[UUID, Working]] = {pk: {} for pk in wanted}
    rows = sql.run(
        "SELECT oco, id, side, open_quantity, round(open_quantity * unit_amount, 10) FROM risk_hold "
        "WHERE oco = ANY(%s) AND open_quantity > 0",
        [sorted(wanted)],
    )
    for oco, pk, *working in rows:
        found[oco][pk] = Working(*working)
    return found


def _ask_halts() -> Answer:
    return sql.run("SELECT mode, scope_kind, scope_key FROM risk_halt WHERE released_at IS NULL")


def _ask_restricted(instrument_ids: set[int], at: datetime) -> Answer:
    return sql.run(
        "SELECT instrument_id, watched, since FROM risk_restrictedinstrument "
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
    if not any(x.kind == "duplicate_window" for x in limits):
        return set()
    since: dict[bytes, datetime] = {}
    bound: dict[frozenset[tuple[str, str]], LimitSet] = {}
    for intent in intents:
        window = _bound(bound, intent, limits).duplicate_window(intent)
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


def _bound(known: dict[frozenset[tuple[str, str]], LimitSet], intent: Intent, limits: list[LimitRef]) -> LimitSet:
    scopes = scopes_of(intent)
    if scopes not in known:
        known[scopes] = LimitSet(x for x in limits if x.binds in scopes)
    return known[scopes]
