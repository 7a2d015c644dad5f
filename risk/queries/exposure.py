"""How much is used, held and left."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.domain.reference import InstrumentRef
from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.runtime import sql
from portfolio.models import Account
from risk.domain.gate import Gate
from risk.domain.intents import Intent
from risk.domain.limits import LimitRef
from risk.models import Limit
from risk.queries.loading import load_facts

NOBODY = UUID(int=0)


def exposure_out(accounts: Iterable[Account], *, at: datetime) -> list[dict[str, Any]]:
    """Return one row per account and instrument held or worked, with the position limit's headroom, and one per
    account for its cash. Headroom is never below zero; `breach` tells that a limit was lowered under what is used."""
    rows = []
    for account, gate, probe in gates(accounts, at):
        limit = min((x.value for x in gate.limits_for(probe).hard.get(Limit.Kind.POSITION, ())), default=None)
        for (_, instrument_id), held in sorted(h for h in gate.facts.holdings.items() if h[0][0] == account.id):
            rows.append(
                {
                    "account": account.code,
                    "symbol": gate.facts.instruments[instrument_id].symbol,
                    "kind": Limit.Kind.POSITION.value,
                    **_headroom(limit, abs(held.quantity), held.largest() - abs(held.quantity)),
                    "buying": decimals.text(held.buying),
                    "selling": decimals.text(held.selling),
                    "held_amount": decimals.text(held.amount),
                    "currency": gate.facts.instruments[instrument_id].currency,
                }
            )
        rows.append(_cash_row(account, gate))
    return rows


def _headroom(limit: Decimal | None, used: Decimal, held: Decimal) -> dict[str, Any]:
    left = None if limit is None else max(ZERO, limit - used - held)
    return {
        "limit": decimals.text_or_none(limit),
        "used": decimals.text(used),
        "held": decimals.text(held),
        "headroom": decimals.text_or_none(left),
        "breach": limit is not None and used + held > limit,
    }


def _cash_row(account: Account, gate: Gate) -> dict[str, Any]:
    free = gate.free_cash(account.id, account.base_currency)
    return {
        "account": account.code,
        "symbol": None,
        "kind": "buying_power",
        "limit": None,
        "used": None,
        "held": None,
        "headroom": None if free is None else decimals.text(decimals.money(max(ZERO, free))),
        "breach": free is not None and free < 0,
        "currency": account.base_currency,
    }


def balances_out(account_id: int, balances: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the portfolio's balances with what open orders hold and what may still be committed, per currency.

    `available` = ledger − held: a currency's own free cash. Short positions and other currencies count in
    buying power, which `exposure_out` shows.
    """
    held = dict(
        sql.run(
            "SELECT i.currency, sum(e.amount) FROM risk_exposure e JOIN brokers_instrument i ON i.id = e.instrument_id "
            "WHERE e.account_id = %s AND e.amount > 0 GROUP BY i.currency",
            [account_id],
        ).fetchall()
    )
    rows = []
    for balance in balances:
        taken = held.pop(balance["currency"], ZERO)
        available = Decimal(balance["ledger"]) - taken
        rows.append({**balance, "held": decimals.text(taken), "available": decimals.text(available)})
    nothing = dict.fromkeys(("ledger", "settled", "unsettled_in", "unsettled_out"), "0")
    rows += [
        {"currency": c, **nothing, "held": decimals.text(a), "available": decimals.text(-a)}
        for c, a in sorted(held.items())
    ]
    return rows


def gates(
    accounts: Iterable[Account], at: datetime, *, told: Sequence[LimitRef] | None = None
) -> Iterable[tuple[Account, Gate, Intent]]:
    """Yield each account with the gate that would judge its orders, by the limits `told` if any are, and an order of nobody to
    ask it with. A desk without instruments has nothing to ask about."""
    some = next(iter(brokers.instruments().values()), None)
    if some is None:
        return
    for account in accounts:
        probe = Intent(
            order_id=NOBODY,
            account_id=account.id,
            account_code=account.code,
            base_currency=account.base_currency,
            account_open=True,
            instrument=some,
            side="buy",
            quantity=ZERO,
        )
        yield account, Gate(load_facts([probe], at=at, locking=False, told=told)), probe


def order_ceiling(account: Account, instrument: InstrumentRef, price: Decimal, *, at: datetime) -> Decimal:
    """Return the most units that the limits on one order, hard and soft, leave of an instrument at a price.

    What nobody limits is bounded by what the desk can count.
    """
    for _, gate, probe in gates([account], at):
        limits = gate.limits_for(replace(probe, instrument=instrument))
        most = [x.value for x in [*limits.hard.get("order_quantity", []), *limits.soft.get("order_quantity", [])]]
        for limit in [*limits.hard.get("order_notional", []), *limits.soft.get("order_notional", [])]:
            currency = limit.currency or account.base_currency
            unit = gate.convert(price, instrument.currency, currency)
            if unit:
                most.append(limit.value / unit)
        return min(most, default=decimals.BOUND)
    return ZERO
