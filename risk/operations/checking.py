"""Judging orders and reserving their worst case, until nothing more can come of them.

Callers hold the account rows of the orders locked (in order of id) in the transaction that stores the orders:
two orders can then never both be let through on the same headroom. `resize` is right without it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import structlog

from brokers import queries as market
from oms.kernel import decimals, json
from oms.kernel.decimals import EXACT, ZERO, money
from oms.kernel.ids import uuid7
from oms.kernel.reasons import Reason
from oms.runtime import rows, sql
from oms.runtime.transactions import require_transaction
from risk.domain.gate import Gate, Reservation
from risk.domain.intents import Intent, Verdict
from risk.models import Hold, RiskCheck
from risk.operations.complying import note_breaches
from risk.queries.loading import RestingOrders, load_facts

log = structlog.get_logger(__name__)

HELD_AMOUNT = "round(h.open_quantity * h.unit_amount, 10)"
"""The cash one hold takes, as the totals count it: rounded per hold, so that sums of differences stay exact."""


def check(intents: Sequence[Intent], *, at: datetime, resting: RestingOrders | None = None) -> list[Verdict]:
    """Judge orders in turn, each approved one counting for the next; store every verdict, and a hold for each approved.

    Eleven statements for any number of orders, a few more where limits or rules ask for them. Anything that goes wrong inside a check
    denies that order. One that only a soft limit stands against, or orders `resting` of its own account that must go first, comes back
    `held`: nothing is reserved for it.
    """
    if not intents:
        return []
    require_transaction()
    gate = Gate(load_facts(intents, at=at, resting=resting))
    verdicts, holds = [], []
    for intent in intents:
        verdict, reservation = _judge(gate, intent)
        verdicts.append(verdict)
        if reservation is not None:
            holds.append(_hold(intent, reservation, at))
    sql.insert_values(RiskCheck, _CHECK, [_record(i, v, at) for i, v in zip(intents, verdicts, strict=True)])
    _reserve(holds)
    _keep_pace(gate)
    if gate.facts.compliance:
        note_breaches(gate, intents, verdicts, at=at)
    return verdicts


def judge_released(
    intent: Intent, *, at: datetime, waived: bool = True, resting: RestingOrders | None = None
) -> Verdict:
    """Judge an order that was held, and reserve for it if it is approved; `waived`: another person let it pass the soft limits."""
    require_transaction()
    gate = Gate(load_facts([intent], at=at, resting=resting))
    verdict, reservation = _judge(gate, intent, waived=waived)
    _store_later(intent, verdict, at)
    if reservation is not None:
        _reserve([_hold(intent, reservation, at)])
        _keep_pace(gate)
    return verdict


_CHECK = ("id", "account_id", "approved", "held", "reason", "checks", "at")


def _record(intent: Intent, verdict: Verdict, at: datetime) -> tuple[object, ...]:
    checks = json.dumps(verdict.checks)
    return intent.order_id, intent.account_id, verdict.approved, verdict.held, verdict.reason, checks, at


def _store_later(intent: Intent, verdict: Verdict, at: datetime) -> None:
    record = (uuid7(), *_record(intent, verdict, at)[1:], intent.order_id)
    sql.insert_values(RiskCheck, (*_CHECK, "again_of"), [record])


def _keep_pace(gate: Gate) -> None:
    """Store the buckets that approved orders filled."""
    filled = sorted(gate.paced)
    if not filled:
        return
    paces = [gate.facts.paces[key] for key in filled]
    sql.run(
        "INSERT INTO risk_pace (account_id, kind, scope_kind, scope_key, level, at) "
        "SELECT * FROM unnest(%s::bigint[], %s::varchar[], %s::varchar[], %s::varchar[], %s::numeric[], %s::timestamptz[]) "
        "ON CONFLICT (account_id, kind, scope_kind, scope_key) DO UPDATE SET level = EXCLUDED.level, at = EXCLUDED.at",
        [*(list(column) for column in zip(*filled, strict=True)), [p.level for p in paces], [p.at for p in paces]],
    )


def _judge(
    gate: Gate, intent: Intent, working: Decimal | None = None, *, waived: bool = False
) -> tuple[Verdict, Reservation | None]:
    try:
        return gate.judge(intent, working=working, waived=waived)
    except Exception as error:  # fail closed: what can't be computed may not trade
        log.exception("risk_check_failed", order_id=str(intent.order_id))
        failed = {
            "check": "failed",
            "passed": False,
            "reason": Reason.CHECK_FAILED.value,
            "numbers": {"error": type(error).__name__},
        }
        return Verdict(intent.order_id, False, Reason.CHECK_FAILED.value, Reason.CHECK_FAILED.sentence, [failed]), None


def _hold(intent: Intent, reservation: Reservation, at: datetime) -> Hold:
    return rows.make(
        Hold,
        id=intent.order_id,
        account_id=intent.account_id,
        instrument_id=intent.instrument.id,
        side=intent.side,
        open_quantity=reservation.quantity,
        unit_amount=reservation.unit_amount,
        currency=intent.instrument.currency,
        strategy_id=intent.strategy_id,
        user_id=intent.user_id,
        fingerprint=reservation.fingerprint,
        oco=intent.oco,
        created_at=at,
    )


def _reserve(holds: Sequence[Hold]) -> None:
    """Insert holds and raise the totals of their accounts and instruments by them."""
    if not holds:
        return
    in_sets = {h.id: (h.open_quantity, None) for h in holds if h.oco is not None}
    for hold in holds:
        if hold.oco is not None:  # what it adds to the worst of its set is worked out once it stands there
            hold.open_quantity = ZERO
    sql.insert(holds)
    sql.run(
        f"""
        INSERT INTO risk_exposure AS e (account_id, instrument_id, buying, selling, amount)
        SELECT h.account_id, h.instrument_id,
          coalesce(sum(h.open_quantity) FILTER (WHERE h.side = 'buy'), 0),
          coalesce(sum(h.open_quantity) FILTER (WHERE h.side <> 'buy'), 0),
          sum({HELD_AMOUNT})
        FROM unnest(%s::bigint[], %s::bigint[], %s::varchar[], %s::numeric[], %s::numeric[])
          h(account_id, instrument_id, side, open_quantity, unit_amount)
        GROUP BY h.account_id, h.instrument_id ORDER BY h.account_id, h.instrument_id
        ON CONFLICT (account_id, instrument_id) DO UPDATE SET
          buying = e.buying + EXCLUDED.buying, selling = e.selling + EXCLUDED.selling, amount = e.amount + EXCLUDED.amount
        """,
        [
            [h.account_id for h in holds],
            [h.instrument_id for h in holds],
            [h.side for h in holds],
            [h.open_quantity for h in holds],
            [h.unit_amount for h in holds],
        ],
    )
    _set_holds(in_sets)


_RESIZE = f"""
WITH before AS MATERIALIZED (
  SELECT h.id, h.account_id, h.instrument_id, h.side, h.oco, h.open_quantity, h.unit_amount, u.open, u.unit
  FROM risk_hold h JOIN unnest(%(ids)s::uuid[], %(open)s::numeric[], %(unit)s::numeric[]) u(id, open, unit) ON u.id = h.id
), written AS (
  UPDATE risk_hold h SET open_quantity = b.open, unit_amount = coalesce(b.unit, b.unit_amount) FROM before b
  WHERE h.id = b.id AND (b.open, coalesce(b.unit, b.unit_amount)) <> (b.open_quantity, b.unit_amount)
), sets AS (
  SELECT h.account_id, h.instrument_id, h.side, h.oco, h.open_quantity, coalesce(b.open, h.open_quantity) AS open,
    {HELD_AMOUNT} AS amount, round(coalesce(b.open, h.open_quantity) * coalesce(b.unit, h.unit_amount), 10) AS amount_now
  FROM risk_hold h LEFT JOIN before b ON b.id = h.id
  WHERE h.oco = ANY(ARRAY(SELECT DISTINCT oco FROM before WHERE oco IS NOT NULL))
), moved AS (
  SELECT account_id, instrument_id, sum(buying) AS buying, sum(selling) AS selling, sum(amount) AS amount FROM (
    SELECT h.account_id, h.instrument_id,
      coalesce(sum(h.open - h.open_quantity) FILTER (WHERE h.side = 'buy'), 0) AS buying,
      coalesce(sum(h.open - h.open_quantity) FILTER (WHERE h.side <> 'buy'), 0) AS selling,
      sum(round(h.open * coalesce(h.unit, h.unit_amount), 10) - {HELD_AMOUNT}) AS amount
    FROM before h WHERE h.oco IS NULL GROUP BY h.account_id, h.instrument_id
    UNION ALL
    SELECT account_id, instrument_id,
      coalesce(max(open) FILTER (WHERE side = 'buy') - max(open_quantity) FILTER (WHERE side = 'buy'), 0),
      coalesce(max(open) FILTER (WHERE side <> 'buy') - max(open_quantity) FILTER (WHERE side <> 'buy'), 0),
      max(amount_now) - max(amount)
    FROM sets GROUP BY account_id, instrument_id, oco
  ) either GROUP BY account_id, instrument_id
)
UPDATE risk_exposure e SET buying = e.buying + m.buying, selling = e.selling + m.selling, amount = e.amount + m.amount
FROM moved m
WHERE e.account_id = m.account_id AND e.instrument_id = m.instrument_id AND (m.buying, m.selling, m.amount) <> (0, 0, 0)
"""
"""Orders of a set in which one cancels the others hold the worst of one, on either side and of cash."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of terms asked for: the unit amount of those that were accepted, if any were, and of those still asked for."""

    accepted: Decimal | None
    pending: Sequence[Decimal]


def resize(open_quantities: Mapping[UUID, Decimal], *, decided: Mapping[UUID, Decided] | None = None) -> None:
    """Set holds to what may still be filled, 0 to release, and the totals with them. Two statements, two more where new
    terms were decided: then a unit is held at the worst of what is in force and what is still asked for.

    Whatever quantity is told is recorded, more than before too: limits bind new orders, not facts. Orders without
    a hold (denied, or adopted from a broker) are passed over.
    """
    units = _units(decided) if decided else {}
    _set_holds({order_id: (quantity, units.get(order_id)) for order_id, quantity in open_quantities.items()})


def rescaled(order_ids: Sequence[UUID], ratio: tuple[int, int]) -> dict[UUID, Decided]:
    """Return what holds take for a unit after a split of `ratio` new units for old ones, as `resize` wants to be told."""
    rows = sql.run(
        "SELECT id, coalesce(own_amount, unit_amount) FROM risk_hold WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
        [sorted(order_ids)],
    )
    new, old = Decimal(ratio[0]), Decimal(ratio[1])
    return {pk: Decided(money(EXACT.divide(EXACT.multiply(amount, old), new)), []) for pk, amount in rows}


def _units(decided: Mapping[UUID, Decided]) -> dict[UUID, Decimal]:
    found = sql.run(
        "SELECT id, coalesce(own_amount, unit_amount) FROM risk_hold WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
        [sorted(decided)],
    )
    own: dict[UUID, Decimal] = {}
    for pk, amount in found:
        accepted = decided[pk].accepted
        own[pk] = amount if accepted is None else accepted
    kept = [own[pk] if decided[pk].pending else None for pk in own]
    sql.run(
        "UPDATE risk_hold h SET own_amount = u.own FROM unnest(%s::uuid[], %s::numeric[]) u(id, own) WHERE h.id = u.id",
        [list(own), kept],
    )
    return {pk: max([amount, *decided[pk].pending]) for pk, amount in own.items()}


def _set_holds(wanted: Mapping[UUID, tuple[Decimal, Decimal | None]]) -> None:
    if not wanted:
        return
    require_transaction()
    ids = sorted(wanted)
    # A statement of its own: the next one's snapshot is then younger than the locks, and sees what they waited for.
    sql.run(
        "SELECT FROM risk_hold WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [ids]
    )  # of sets, the account's lock holds the rest
    sql.run(_RESIZE, {"ids": ids, "open": [wanted[i][0] for i in ids], "unit": [wanted[i][1] for i in ids]})


def recheck(intent: Intent, *, open_quantity: Decimal, at: datetime, resting: RestingOrders | None = None) -> Verdict:
    """Judge an order with new terms, its own hold left out; if approved, the hold grows to the worst of old and new.

    `intent` has the new total quantity, `open_quantity` is what may still be filled under it. The hold never shrinks
    here: until the broker answers, the old terms may still trade; `resize` sets what is left then. The price
    it is held at is the worse of both until `resize` is told what was decided. The verdict isn't stored: it belongs into the event of the replace.
    """
    require_transaction()
    held = sql.run(
        "SELECT open_quantity, unit_amount, oco FROM risk_hold WHERE id = %s FOR UPDATE", [intent.order_id]
    ).fetchone()
    old = held[:2] if held else None
    intent = replace(intent, oco=held[2] if held else None)
    gate = Gate(load_facts([intent], at=at, resting=resting))
    if old is not None:
        gate.take_out(intent, *old)
    verdict, reservation = _judge(gate, intent, open_quantity)
    if reservation is None:
        return verdict
    _keep_pace(gate)
    if old is None:  # an order adopted from a broker was never judged before
        record = _record(intent, verdict, at)
        sql.insert_values(RiskCheck, _CHECK, [record], on_conflict="ON CONFLICT (id) DO NOTHING")
        _reserve([_hold(intent, replace(reservation, fingerprint=None), at)])
    else:
        _store_later(intent, verdict, at)
        sql.run("UPDATE risk_hold SET own_amount = coalesce(own_amount, unit_amount) WHERE id = %s", [intent.order_id])
        _set_holds({intent.order_id: (max(old[0], reservation.quantity), max(old[1], reservation.unit_amount))})
    return replace(verdict, unit_amount=reservation.unit_amount)


def take_over(intent: Intent, *, quantity: Decimal, at: datetime) -> None:
    """Hold for an order that works at a broker already, inside the caller's transaction. Nobody is asked whether it may: it is
    a fact, and the next order is judged with it. A buy holds its limit price, or the ask where it has none."""
    require_transaction()
    quote = market.quotes([intent.instrument.id]).get(intent.instrument.id)
    price = intent.limit_price or (quote.ask if quote else decimals.ZERO)
    unit = price if intent.side == "buy" else decimals.ZERO
    check = {"check": "adopted", "passed": True, "reason": None, "numbers": {"quantity": decimals.text(quantity)}}
    verdict = Verdict(intent.order_id, True, checks=[check])
    sql.insert_values(RiskCheck, _CHECK, [_record(intent, verdict, at)], on_conflict="ON CONFLICT (id) DO NOTHING")
    _reserve([_hold(intent, Reservation(quantity, unit, None), at)])


def judge_again(
    questions: Sequence[tuple[Intent, Decimal]], *, at: datetime, resting: RestingOrders | None = None
) -> list[Verdict]:
    """Judge orders that are held for already, by what holds now: each without its own hold, with what may still be filled.

    A hold grows to what it would take today; it never shrinks here. The verdicts aren't stored: they belong into the
    events of what ends by them.
    """
    if not questions:
        return []
    require_transaction()
    holds = _holds_of(intent for intent, _ in questions)
    asked = [(replace(i, oco=holds[i.order_id].oco), w) if i.order_id in holds else (i, w) for i, w in questions]
    gate = Gate(load_facts([intent for intent, _ in asked], at=at, resting=resting))
    counted = {pk: (held.quantity, held.unit_amount) for pk, held in holds.items()}
    verdicts, grown = [], {}
    for intent, working in asked:
        held = holds.get(intent.order_id)
        if intent.order_id in counted:  # several questions may be about one order
            gate.take_out(intent, *counted.pop(intent.order_id))
        verdict, reservation = _judge(gate, intent, working, waived=True)
        verdicts.append(verdict)
        if reservation is not None:
            counted[intent.order_id] = (reservation.quantity, reservation.unit_amount)
        if reservation is not None and held is not None and reservation.unit_amount > held.unit_amount:
            grown[intent.order_id] = (held.quantity, reservation.unit_amount)
    _set_holds(grown)
    return verdicts


def judge_legs(
    questions: Sequence[tuple[Intent, Decimal]],
    *,
    waits_on: frozenset[Reason],
    at: datetime,
    resting: RestingOrders | None = None,
) -> list[Verdict]:
    """Judge orders that waited for another one to be filled, each with the units that may work of it now; reserve for the approved.

    Their group was let through with its first order: neither soft limits nor rates have a say. Every verdict is stored but
    one whose reason the order waits on for: it is asked about again.
    """
    if not questions:
        return []
    require_transaction()
    holds = _holds_of(intent for intent, _ in questions)
    gate = Gate(load_facts([intent for intent, _ in questions], at=at, resting=resting))
    verdicts, new, known = [], [], {}
    for intent, working in questions:
        held = holds.get(intent.order_id)
        if held is not None:
            gate.take_out(intent, held.quantity, held.unit_amount)
        verdict, reservation = _judge(gate, intent, working, waived=True)
        verdicts.append(verdict)
        if verdict.approved or verdict.reason not in waits_on:
            _store_later(intent, verdict, at)
        if reservation is None:
            continue
        if held is None:
            new.append(_hold(intent, reservation, at))
        else:
            known[intent.order_id] = (working, reservation.unit_amount)
    _reserve(new)
    _set_holds(known)
    return verdicts


class _Held(NamedTuple):
    """A hold as it stands."""

    quantity: Decimal
    unit_amount: Decimal
    oco: UUID | None


def _holds_of(intents: Iterable[Intent]) -> dict[UUID, _Held]:
    """Return the holds of orders, locked."""
    found = sql.run(
        "SELECT id, open_quantity, unit_amount, oco FROM risk_hold WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
        [sorted({intent.order_id for intent in intents})],
    )
    return {pk: _Held(*held) for pk, *held in found}
