"""Emergency liquidation: block a scope, cancel what works there, bring its positions to zero, and prove it.

Every step is worked out from the rows as they stand, so whoever crashed in the middle, the next one goes on: the pricer looks
each second at what is running. Flattening orders are immediate-or-cancel with a limit that guards the price, directed to a
broker that holds the position; the position is read again, under the account's lock, for each of them, so that none
goes through zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any
from uuid import UUID

import structlog
from django.db.models import Q

from brokers import queries as brokers
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel import decimals
from oms.kernel.actor import Actor
from oms.kernel.batching import chunks
from oms.kernel.decimals import text
from oms.kernel.errors import Conflict, Invalid
from oms.kernel.ids import first_id, uuid7
from oms.kernel.json import rfc3339
from oms.runtime import sql
from oms.runtime.transactions import each, in_transaction
from orders.domain.tickets import Ticket
from orders.models import Execution, Order
from orders.operations.changing import CANCELS_MAX, cancel_batch
from orders.operations.halting import halt, open_in
from orders.operations.placing import Request, place_locked
from orders.states import OPEN
from portfolio.models import Account, BrokerPosition, Position
from risk.domain.scopes import Scope
from risk.models import Halt, Liquidation
from risk.queries import order_ceiling

SCOPES = ("all", "account", "symbol")
ACTOR = Actor.system("liquidation")
GUARD = Decimal("0.05")
"""How far through the market a flattening order may go, as a fraction of the touch."""
TRIES_MAX = 30
"""Flattening orders for one position; what is left after that, a person looks at."""
PATIENCE = timedelta(minutes=15)
LIQUIDATION_LOCK = 7304
_MAY_FILL = Q(leaves_quantity__gt=0) | Q(unknown=True)
log = structlog.get_logger(__name__)


def positions_in(scope: Scope) -> list[Position]:
    """Return the open positions of a scope, those in the most liquid markets (the narrowest spread) first."""
    narrow = {"account": {"account__code": scope.key}, "symbol": {"instrument__symbol": scope.key}}.get(scope.kind, {})
    found = Position.objects.filter(**narrow).exclude(quantity=0).select_related("account")
    quotes = brokers.quotes({p.instrument_id for p in found})
    return sorted(found, key=lambda p: (_width(quotes.get(p.instrument_id)), p.account_id, p.instrument_id))


def begin(scope: Scope, *, reason: str, actor: Actor, at: datetime) -> Liquidation:
    """Write that a scope is to be liquidated, and take the first step: new orders stop, open ones are canceled.

    Raises `Invalid` for a scope that can't be, `Conflict` (liquidation_running) while one is under way there.
    """
    if scope.kind not in SCOPES:
        raise Invalid("not_a_scope", f"Name one of: {', '.join(SCOPES)}.", field="scope")
    if not reason.strip():
        raise Invalid("required", "Say why.", field="reason")
    symbols = brokers.instruments_by_symbol()
    known = {"account": lambda: Account.objects.filter(code=scope.key).exists(), "symbol": lambda: scope.key in symbols}
    if not known.get(scope.kind, lambda: True)():
        raise Invalid(f"unknown_{scope.kind}", f"There is no such {scope.kind}.", field="scope")
    liquidation = _store(scope, reason.strip()[:200], actor, at)
    advance(liquidation.id, at=at)
    return Liquidation.objects.get(pk=liquidation.id)


@in_transaction
def _store(scope: Scope, reason: str, actor: Actor, at: datetime) -> Liquidation:
    sql.run("SELECT pg_advisory_xact_lock(%s)", [LIQUIDATION_LOCK])
    if Liquidation.objects.filter(scope_kind=scope.kind, scope_key=scope.key, state="running").exists():
        raise Conflict("liquidation_running", "A liquidation is under way there; look at its steps.")
    instruments = brokers.instruments()
    opened = [
        {"account": p.account.code, "symbol": instruments[p.instrument_id].symbol, "quantity": text(p.quantity)}
        for p in positions_in(scope)
    ]
    return Liquidation.objects.create(
        id=uuid7(), scope_kind=scope.kind, scope_key=scope.key, reason=reason, maker_id=actor.user_id, made_by=actor.name,
        opened=opened, steps=[_step(at, "began", f"{len(opened)} positions are open.")], began_at=at,
    )  # fmt: skip


def advance_all(*, at: datetime) -> int:
    """Take the next step of every liquidation that is running; return how many."""
    running = list(Liquidation.objects.filter(state="running").order_by("id").values_list("id", flat=True))
    return each(running, lambda pk: advance(pk, at=at))


def advance(liquidation_id: UUID, *, at: datetime) -> None:
    """Take the next step: block, cancel, wait for what still works, flatten, prove. One process at a time."""
    with _alone(liquidation_id) as mine:
        liquidation = Liquidation.objects.get(pk=liquidation_id)
        if mine and liquidation.state == Liquidation.State.RUNNING:
            _advance(liquidation, Scope(liquidation.scope_kind, liquidation.scope_key), at)


@contextmanager
def _alone(liquidation_id: UUID) -> Iterator[bool]:
    row = sql.run("SELECT pg_try_advisory_lock(%s, hashtext(%s))", [LIQUIDATION_LOCK, str(liquidation_id)]).fetchone()
    mine = bool(row and row[0])
    try:
        yield mine
    finally:
        if mine:
            sql.run("SELECT pg_advisory_unlock(%s, hashtext(%s))", [LIQUIDATION_LOCK, str(liquidation_id)])


def _advance(liquidation: Liquidation, scope: Scope, at: datetime) -> None:
    if liquidation.halt_id is None:
        why = f"liquidation: {liquidation.reason}"
        engaged, canceled = halt(scope, mode=Halt.Mode.REDUCE_ONLY, cancel_open=True, reason=why, actor=ACTOR, at=at)
        liquidation.halt = engaged
        _note(liquidation, at, "blocked", f"Only what reduces passes; {canceled} open orders were asked to end.")
    ours = set(_orders(liquidation).values_list("id", flat=True))
    others = [i for i in open_in(scope) if i not in ours]
    for batch in chunks(others, CANCELS_MAX):
        cancel_batch(batch, actor=ACTOR, at=at, reason=f"liquidation: {liquidation.reason}")
    late = at >= liquidation.began_at + PATIENCE
    if not late and _working(scope).exists():
        return  # what may still be filled decides how much is left to flatten
    whys = {} if late else _flatten(liquidation, scope, at)
    if not late and (_working(scope).exists() or any(why == "" for why in whys.values())):
        return
    _finish(liquidation, scope, whys, at)


def _working(scope: Scope) -> Any:
    """Return the orders of a scope that something may still come of; one that is done waits for no answer to its cancel."""
    narrow = {"account": {"account__code": scope.key}, "symbol": {"instrument__symbol": scope.key}}.get(scope.kind, {})
    return Order.objects.filter(_MAY_FILL, status__in=sorted(OPEN), **narrow)


def _orders(liquidation: Liquidation) -> Any:
    prefix = f"liq-{liquidation.id.hex}-"
    since = first_id(liquidation.began_at - timedelta(minutes=1))
    return Order.objects.filter(id__gte=since, origin="liquidation", client_order_id__startswith=prefix).order_by("id")


def _flatten(liquidation: Liquidation, scope: Scope, at: datetime) -> dict[tuple[int, int], str]:
    """Send one order for each open position; return for each why none was sent, empty where one was, or is tried again."""
    whys = {}
    for position in positions_in(scope):
        pair = position.account_id, position.instrument_id
        whys[pair] = _slice(liquidation, position, at)
    return whys


@in_transaction
def _slice(liquidation: Liquidation, seen: Position, at: datetime) -> str:
    account = Account.objects.select_for_update(no_key=True).get(pk=seen.account_id)
    instrument = brokers.instruments()[seen.instrument_id]
    held = Position.objects.get(pk=seen.pk).quantity
    mine = _orders(liquidation).filter(account=account, instrument_id=instrument.id)
    if held == 0 or mine.filter(_MAY_FILL, status__in=sorted(OPEN)).exists():
        return ""
    tried = mine.count()
    last = mine.last()
    if tried >= TRIES_MAX:
        return (
            f"{tried} orders did not bring it to zero; the last was {last.status} {last.reason_detail or last.reason}."
        )
    quote = brokers.quotes([instrument.id]).get(instrument.id)
    if quote is None:
        return "There is no price."
    broker, most = _holder(account.pk, instrument.id, held)
    side = "sell" if held > 0 else "buy"
    price = _guarded(side, quote, instrument)
    quantity = _whole_lots(min(abs(held), most, order_ceiling(account, instrument, price, at=at)), instrument)
    if quantity <= 0:
        return "The limits on one order leave no whole lot."
    ticket = Ticket(
        account=account.code, symbol=instrument.symbol, side=side, quantity=quantity, order_type="limit", limit_price=price,
        time_in_force="ioc", broker=broker, client_order_id=f"liq-{liquidation.id.hex}-{instrument.id}-{tried + 1}",
        note=f"liquidation: {liquidation.reason}"[:200],
    )  # fmt: skip
    [placed] = place_locked([Request(ticket, ACTOR, origin="liquidation")], at=at)
    detail = f"{side} {text(quantity)} {instrument.symbol} at {text(price)} or better in {account.code}"
    _note(liquidation, at, "flattening", f"{detail}{f': {placed.problem.detail}' if placed.problem else ''}")
    return placed.problem.detail if placed.problem else ""


def _holder(account_id: int, instrument_id: int, held: Decimal) -> tuple[str, Decimal]:
    """Return the broker with most of a position on its side, and how much; no broker where none has any."""
    rows = BrokerPosition.objects.filter(account_id=account_id, instrument_id=instrument_id).select_related("broker")
    alike = [r for r in rows if r.quantity * held > 0 and r.broker.enabled]
    best = max(alike, key=lambda r: abs(r.quantity), default=None)
    return (best.broker.code, abs(best.quantity)) if best else ("", abs(held))


def _guarded(side: str, quote: QuoteRef, instrument: InstrumentRef) -> Decimal:
    """Return the worst price that a flattening order may trade at, on the tick grid inside of the guard."""
    exact = quote.bid * (1 - GUARD) if side == "sell" else quote.ask * (1 + GUARD)
    tick = instrument.tick_size
    ticks = (exact / tick).to_integral_value(ROUND_CEILING if side == "sell" else ROUND_FLOOR)
    return max(ticks * tick, tick)


def _whole_lots(quantity: Decimal, instrument: InstrumentRef) -> Decimal:
    return (quantity / instrument.lot_size).to_integral_value(ROUND_FLOOR) * instrument.lot_size


def _width(quote: QuoteRef | None) -> Decimal:
    return decimals.BOUND if quote is None or quote.mid <= 0 else (quote.ask - quote.bid) / quote.mid


def _finish(liquidation: Liquidation, scope: Scope, whys: dict[tuple[int, int], str], at: datetime) -> None:
    """Write the proof: what was open, what was sent and filled, what remains and why."""
    instruments = brokers.instruments()
    remains = [
        {
            "account": p.account.code,
            "symbol": instruments[p.instrument_id].symbol,
            "quantity": text(p.quantity),
            "why": whys.get((p.account_id, p.instrument_id)) or "Time ran out.",
        }
        for p in positions_in(scope)
    ]
    still = [{"order": str(o.id), "status": str(o.status), "unknown": o.unknown} for o in _working(scope)]
    flat = not remains and not still
    liquidation.state = Liquidation.State.FLAT if flat else Liquidation.State.INCOMPLETE
    liquidation.ended_at = at
    liquidation.proof = {
        "at": rfc3339(at),
        "flat": flat,
        "opened": liquidation.opened,
        "orders": [_told(o) for o in _orders(liquidation)],
        "remains": remains,
        "still_open": still,
        "brokers": _at_brokers(scope),
    }
    _note(liquidation, at, liquidation.state, f"{len(remains)} positions and {len(still)} orders remain.")
    (log.info if flat else log.error)("liquidated", scope=str(scope), state=liquidation.state)


def _told(order: Order) -> dict[str, Any]:
    fills = Execution.objects.filter(order=order).select_related("broker").order_by("id")
    return {
        "order": str(order.id),
        "side": order.side,
        "symbol": brokers.instruments()[order.instrument_id].symbol,
        "quantity": text(order.quantity),
        "filled": text(order.filled_quantity),
        "status": str(order.status),
        "reason": order.reason_detail or order.reason or None,
        "confirmations": [
            {"broker": f.broker.code, "id": f.broker_execution_id, "quantity": text(f.quantity), "price": text(f.price)}
            for f in fills
        ],
    }


def _at_brokers(scope: Scope) -> list[dict[str, str]]:
    narrow = {"account": {"account__code": scope.key}, "symbol": {"instrument__symbol": scope.key}}.get(scope.kind, {})
    rows = BrokerPosition.objects.filter(**narrow).exclude(quantity=0).select_related("account", "broker", "instrument")
    return [
        {
            "account": r.account.code,
            "broker": r.broker.code,
            "symbol": r.instrument.symbol,
            "quantity": text(r.quantity),
        }
        for r in rows
    ]


def _step(at: datetime, step: str, detail: str) -> dict[str, str]:
    return {"at": rfc3339(at), "step": step, "detail": detail}


def _note(liquidation: Liquidation, at: datetime, step: str, detail: str) -> None:
    liquidation.steps = [*liquidation.steps, _step(at, str(step), detail)]
    liquidation.save()


def liquidation_out(liquidation: Liquidation) -> dict[str, Any]:
    """Return a liquidation in its REST shape."""
    return {
        "id": str(liquidation.id),
        "scope": Scope(liquidation.scope_kind, liquidation.scope_key).as_json(),
        "reason": liquidation.reason,
        "state": liquidation.state,
        "halt": str(liquidation.halt_id) if liquidation.halt_id else None,
        "made_by": liquidation.made_by,
        "began_at": rfc3339(liquidation.began_at),
        "ended_at": rfc3339(liquidation.ended_at) if liquidation.ended_at else None,
        "steps": liquidation.steps,
        "proof": liquidation.proof,
    }
