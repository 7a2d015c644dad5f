"""How much of every limit is used and by what, who may trade what, and what jumps of prices would do."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers import queries as brokers
from brokers.domain.reference import InstrumentRef
from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.kernel.json import rfc3339_or_none
from oms.runtime import sql
from portfolio.models import Account
from risk.domain import aggregates, bounds, checks, measures
from risk.domain.gate import Gate, MandateRef
from risk.domain.intents import Intent
from risk.domain.limits import LimitRef
from risk.domain.scopes import Scope
from risk.domain.stress import Exposed, outcomes
from risk.queries.exposure import gates
from risk.queries.loading import every_limit

BY_INSTRUMENT = aggregates.BY_INSTRUMENT | {"concentration", "concentration_sector", "concentration_class"}
USED = BY_INSTRUMENT | {
    "gross_exposure", "net_exposure", "leverage", "open_orders", "order_rate", "replace_rate", "message_rate", "daily_loss",
    "drawdown",
}  # fmt: skip
"""Kinds of limits of which something is used between two orders."""
COUNTING_THE_NEXT = frozenset({"open_orders", "order_rate", "replace_rate", "message_rate"})
CONSUMERS_MAX = 5


def headroom_out(accounts: Sequence[Account], *, at: datetime) -> list[dict[str, Any]]:
    """Return a row for every limit in force and account that it binds, and one for each limit on a sum: where it is used the most,
    how much is left, and what uses it. The figures come from the checks that judge orders."""
    limits = [x for x in every_limit(at) if x.kind in USED]
    rows: list[dict[str, Any]] = []
    summed: set[LimitRef] = set()
    for account, gate, probe in gates(accounts, at, told=limits):
        for limit in limits:
            if limit.aggregate:
                if limit not in summed:
                    summed.add(limit)
                    rows.append(_row(limit, _worst_sum(gate, probe, limit), None, _of_sum(gate, limit)))
            elif (scopes := _reach(limit, account)) is not None:
                rows.append(_row(limit, _worst(gate, probe, limit, scopes), account, _consumers(gate, account, limit)))
    return rows


def _reach(limit: LimitRef, account: Account) -> dict[str, str] | None:
    """Return how an order in the account would name itself to be bound by a limit, None where none can be."""
    kind, key = limit.binds
    if kind == "account":
        return {} if key == account.code else None
    if kind == "user":
        return {"user_name": key} if account.grants.filter(user__username=key).exists() else None
    return {"strategy": {"strategy_code": key}, "broker": {"directed_broker_code": key}}.get(kind, {})


Worst = tuple[checks.Check, str | None]
"""The check that uses most of a limit, and the symbol it is about."""


def _instruments(gate: Gate, account_id: int, limit: LimitRef) -> list[InstrumentRef]:
    kind, key = limit.binds
    held = [gate.facts.instruments[pk] for owner, pk in gate.facts.holdings if owner == account_id]
    if kind in ("symbol", "asset_class", "sector"):
        return [i for i in held if str(getattr(i, kind)) == key]
    return held


def _worst(gate: Gate, probe: Intent, limit: LimitRef, named: dict[str, Any]) -> Worst | None:
    about = _instruments(gate, probe.account_id, limit)
    if limit.kind not in BY_INSTRUMENT:
        about = about[:1] or [probe.instrument]
    found: list[Worst] = []
    for instrument in about:
        for side in ("buy", "sell"):
            intent = replace(probe, instrument=instrument, side=side, **named)
            if not measures.applies(limit.kind, intent, reduces=False, is_new=limit.kind != "replace_rate"):
                continue
            check = measures.MEASURES[limit.kind](gate, intent, ZERO, [limit])
            found.append((check, instrument.symbol if limit.kind in BY_INSTRUMENT else None))
    return max(found, key=lambda w: _figure(w[0]) or ZERO, default=None)


def _worst_sum(gate: Gate, probe: Intent, limit: LimitRef) -> Worst | None:
    totals = gate.facts.sums[limit.scope].totals
    about = (
        [gate.facts.instruments[pk] for pk in totals] if limit.kind in aggregates.BY_INSTRUMENT else [probe.instrument]
    )
    found = [
        (aggregates.check(gate, replace(probe, instrument=i, side=side), ZERO, limit), i.symbol if limit.kind in aggregates.BY_INSTRUMENT else None)
        for i in about
        for side in ("buy", "sell")
    ]  # fmt: skip
    return max(found, key=lambda w: _figure(w[0]) or ZERO, default=None)


def _figure(check: checks.Check) -> Decimal | None:
    """Return how much of its limit a check found used, None where it can't be valued."""
    if isinstance(check, checks.PositionLimit):
        return max(ZERO, check.worst())
    if isinstance(check, checks.GrossExposure):
        return check.gross
    if isinstance(check, bounds.Share):
        if check.exposure is None or check.equity is None:
            return None
        return check.exposure / check.equity if check.equity > 0 else decimals.BOUND * (check.exposure > 0)
    assert isinstance(check, bounds.Ceiling)  # noqa: S101 - the kinds in `USED` make no other checks
    return check.figure


def _row(
    limit: LimitRef, worst: Worst | None, account: Account | None, consumers: list[dict[str, Any]]
) -> dict[str, Any]:
    used = _figure(worst[0]) if worst else ZERO
    if used is not None and limit.kind in COUNTING_THE_NEXT:
        used -= 1
    used = None if used is None else max(used, ZERO)
    return {
        "scope": limit.scope.as_json(),
        "kind": limit.kind,
        "aggregate": limit.aggregate,
        "soft": limit.soft,
        "account": account.code if account else None,
        "symbol": worst[1] if worst else None,
        "limit": decimals.text(limit.value),
        "currency": limit.currency or None,
        "used": None if used is None else decimals.text(round(used, 6)),
        "headroom": None if used is None else decimals.text(max(ZERO, limit.value - round(used, 6))),
        "breach": used is not None and used > limit.value,
        "consumers": consumers,
    }


def _consumers(gate: Gate, account: Account, limit: LimitRef) -> list[dict[str, Any]]:
    """Return the holdings that use most of a limit on positions or exposures, largest first."""
    if limit.kind in COUNTING_THE_NEXT or limit.kind in ("daily_loss", "drawdown"):
        return []
    found = []
    for instrument in _instruments(gate, account.pk, limit):
        held = gate.facts.holdings[account.pk, instrument.id]
        value = gate.value(instrument.id, held.largest(), account.base_currency)
        found.append((value or ZERO, instrument.symbol, held.quantity, held.buying, held.selling))
    return _told(found, account.code, account.base_currency)


def _of_sum(gate: Gate, limit: LimitRef) -> list[dict[str, Any]]:
    if limit.kind in COUNTING_THE_NEXT:
        return []
    currency = limit.currency or "USD"
    found = [
        ((gate.value(pk, t.largest, currency) or ZERO), gate.facts.instruments[pk].symbol, t.quantity, t.buying, t.selling)
        for pk, t in gate.facts.sums[limit.scope].totals.items()
    ]  # fmt: skip
    return _told(found, None, currency)


def _told(
    found: list[tuple[Decimal, str, Decimal, Decimal, Decimal]], account: str | None, currency: str
) -> list[dict[str, Any]]:
    largest = sorted(found, key=lambda f: (-f[0], f[1]))[:CONSUMERS_MAX]
    return [
        {
            "account": account,
            "symbol": symbol,
            "quantity": decimals.text(quantity),
            "buying": decimals.text(buying),
            "selling": decimals.text(selling),
            "value": decimals.text(decimals.money(value)),
            "currency": currency,
        }
        for value, symbol, quantity, buying, selling in largest
    ]


def stress_out(accounts: Iterable[Account], *, at: datetime) -> list[dict[str, Any]]:
    """Return what each scenario would win or lose each account, in its base currency."""
    rows = []
    for account, gate, _ in gates(accounts, at, told=[]):
        base = account.base_currency
        held = [
            Exposed(gate.facts.instruments[pk], gate.value(pk, h.quantity, base))
            for (owner, pk), h in sorted(gate.facts.holdings.items())
            if owner == account.pk and h.quantity
        ]
        cash = {c: gate.convert(amount, c, base) for c, amount in gate.facts.cash.get(account.pk, {}).items()}
        equity = gate.equity(account.pk, base)
        for found in outcomes(held, cash, base):
            after = None if equity is None or found.profit is None else equity + found.profit
            rows.append(
                {
                    "account": account.code,
                    "scenario": found.scenario,
                    "shock": decimals.text(found.shock),
                    "profit": None if found.profit is None else decimals.text(decimals.money(found.profit)),
                    "equity_after": None if after is None else decimals.text(decimals.money(after)),
                    "currency": base,
                }
            )
    return rows


_GRANTS = """
SELECT u.username, a.code, g.expires_at FROM portfolio_accountgrant g JOIN auth_user u ON u.id = g.user_id
JOIN portfolio_account a ON a.id = g.account_id
WHERE a.id = ANY(%s) AND u.is_active AND (g.expires_at IS NULL OR g.expires_at > %s) ORDER BY u.username, a.code
"""


def matrix_out(accounts: Iterable[Account], *, at: datetime) -> list[dict[str, Any]]:
    """Return who may trade what: a row for every user and account granted, with the symbols open to them and what bars the others."""
    ids = [a.pk for a in accounts]
    mandates = [
        MandateRef(Scope(kind, key), dimension, allowed)
        for kind, key, dimension, allowed in sql.run(
            "SELECT scope_kind, scope_key, dimension, allowed FROM risk_mandate ORDER BY id"
        ).fetchall()
    ]
    restricted = {
        pk
        for (pk,) in sql.run(
            "SELECT instrument_id FROM risk_restrictedinstrument WHERE NOT watched AND since <= %s AND (until IS NULL OR until > %s)",
            [at, at],
        )
    }
    halts = sql.run("SELECT scope_kind, scope_key, mode FROM risk_halt WHERE released_at IS NULL").fetchall()
    traded = [i for i in brokers.instruments().values() if i.active]
    rows = []
    for user, account, expires_at in sql.run(_GRANTS, [ids, at]).fetchall():
        named = {("firm", ""), ("all", ""), ("account", account), ("user", user)}
        mine = [m for m in mandates if (m.scope.kind, m.scope.key) in named]
        open_to = [i for i in traded if i.id not in restricted and _allowed(i, mine)]
        rows.append(
            {
                "user": user,
                "account": account,
                "expires_at": rfc3339_or_none(expires_at),
                "halts": sorted(f"{mode} {kind} {key}".strip() for kind, key, mode in halts if (kind, key) in named),
                "mandates": [f"{m.scope}: {m.dimension} {m.allowed}" for m in mine],
                "symbols": sorted(i.symbol for i in open_to),
                "barred": sorted({i.symbol for i in traded} - {i.symbol for i in open_to}),
            }
        )
    return rows


def _allowed(instrument: InstrumentRef, mandates: Sequence[MandateRef]) -> bool:
    return all(m.value_of(instrument) in m.allowed.split(",") for m in mandates)
