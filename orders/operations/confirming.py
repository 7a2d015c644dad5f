"""Trade confirmations: what brokers say in writing of each execution, matched to ours; what differs is a break.

Executions never change by it. A confirmation names an execution by the broker's id, or an order, at the average price of all
its executions; each execution in force gets a row of its own, which a later word of the broker takes the place of.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers.adapters import adapter_for
from brokers.domain.reference import BrokerRef
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.domain.confirming import Terms, differences, net_of, telling, whole
from orders.models import Confirmation, Execution
from orders.operations.reconciling import said_lines
from portfolio import reconciling as books
from portfolio.domain.breaks import BUSTED, FEES, NOT_BOOKED, TERMS, Found, Tolerances, tolerances_of
from portfolio.domain.profiles import FILL, STANDARD
from portfolio.domain.statements import Line, read
from portfolio.models import Break
from portfolio.statements import BadFile, known_at, profile_named, require_broker

Kind = Break.Kind
COLUMNS = (
    "id", "execution_id", "broker_id", "reference", "state", "quantity", "price", "fees", "net", "settle_date", "differences",
    "source", "received_at", "received_by",
)  # fmt: skip
_AGAIN = "ON CONFLICT (execution_id) DO UPDATE SET " + ", ".join(
    f"{c} = EXCLUDED.{c}" for c in COLUMNS if c not in ("id", "execution_id", "broker_id")
)
_NAMED = """
SELECT k.n, e.id FROM unnest(%(numbers)s::int[], %(accounts)s::bigint[], %(references)s::text[]) k(n, account_id, reference)
JOIN portfolio_brokerlink l ON l.account_id = k.account_id AND l.broker_id = %(broker)s
JOIN orders_execution e ON e.broker_account_id = l.broker_account_id AND e.broker_execution_id = k.reference
JOIN orders_order o ON o.id = e.order_id AND o.account_id = k.account_id
"""
_OF_ORDERS = """
SELECT k.n, e.id FROM unnest(%(numbers)s::int[], %(accounts)s::bigint[], %(references)s::text[]) k(n, account_id, reference)
CROSS JOIN LATERAL (
  SELECT c.id, c.order_id FROM orders_childorder c WHERE c.broker_id = %(broker)s AND c.broker_order_id = k.reference
  UNION SELECT c.id, c.order_id FROM orders_submission s JOIN orders_childorder c ON c.id = s.child_id
  WHERE s.broker_id = %(broker)s AND s.client_order_id = k.reference
) c
JOIN orders_order o ON o.id = c.order_id AND o.account_id = k.account_id
JOIN orders_execution e ON e.child_id = c.id AND e.kind <> 'bust'
  AND NOT EXISTS (SELECT 1 FROM orders_execution r WHERE r.ref_id = e.id)
WHERE k.reference <> ''
"""
_VERSIONS = """
WITH RECURSIVE chain AS (
  SELECT e.id AS first, e.id FROM orders_execution e WHERE e.id = ANY(%s::uuid[])
  UNION ALL SELECT c.first, e.id FROM chain c JOIN orders_execution e ON e.ref_id = c.id
)
SELECT c.first, c.id FROM chain c WHERE NOT EXISTS (SELECT 1 FROM orders_execution r WHERE r.ref_id = c.id)
"""
"""The last version of each execution: a correction in force, or its bust."""


@dataclass(slots=True)
class Confirmed:
    """What a file, or a broker's answer, came to."""

    matched: int = 0
    mismatched: int = 0
    unknown: int = 0
    breaks: list[Break] = field(default_factory=list)
    closed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "matched": self.matched, "mismatched": self.mismatched, "unknown": self.unknown,
            "breaks": [str(b.pk) for b in self.breaks], "closed": self.closed,
        }  # fmt: skip


def confirm_file(
    content: bytes, *, broker: str, name: str, profile: str = STANDARD, actor: Actor, at: datetime
) -> Confirmed:
    """Take a broker's file of confirmations: whole, or not at all with its bad lines told (`BadFile`).

    It is read like the fills of a statement (`portfolio.domain.profiles`), with `amount` as the net cash and `settles` as the
    day of settlement where the file has them. Raises `Invalid` for an unknown broker or profile, or what is no table.
    """
    there = require_broker(broker)
    lines, faults = [], []
    for found in read(content, profile_named(profile, there), known_at(there.id)):
        if isinstance(found, Line):
            lines.append(found)
        else:
            faults.append(found)
    if faults:
        raise BadFile(faults, len(faults))
    return _confirm(there, lines, source=name[:100], actor=actor, at=at)


def confirm_answers(broker: BrokerRef, *, since: datetime, actor: Actor, at: datetime) -> Confirmed:
    """Take what a broker answers of its executions since a time as their confirmations. Raises `BrokerError`."""
    adapter = adapter_for(broker.id, broker.adapter, broker.settings)
    lines = list(said_lines(broker.id, adapter.executions_since(since), [], [], []))
    return _confirm(broker, lines, source="answers", actor=actor, at=at)


def unconfirmed(broker_id: int, *, since: datetime, until: datetime) -> list[Execution]:
    """Return the executions in force of a time for which nobody has sent a confirmation, oldest first."""
    return list(
        Execution.objects.filter(
            broker_id=broker_id, executed_at__gte=since, executed_at__lt=until, confirmation=None, execution=None
        )
        .exclude(kind=Execution.Kind.BUST)
        .exclude(order__origin="external")
        .order_by("executed_at", "id")
    )


@in_transaction
def _confirm(broker: BrokerRef, told: Sequence[Line], *, source: str, actor: Actor, at: datetime) -> Confirmed:
    lines = _in_force(told)
    executions = _executions(broker.id, lines)
    done, rows, found = Confirmed(), [], []
    tolerances = tolerances_of(broker.settings)
    for line in lines:
        parts = executions.get(line.line, [])
        differing = _differences(line, parts, tolerances)
        if differing is None:
            done.unknown += 1
        elif differing:
            done.mismatched += 1
        else:
            done.matched += 1
        if differing is None or differing:
            found.append(_found(line, parts, differing))
        rows += [_row(broker.id, line, e, differing or {}, source, actor, at) for e in parts]
    sql.insert_values(Confirmation, COLUMNS, rows, on_conflict=_AGAIN)
    folded = books.fold(
        broker.id, [Kind.CONFIRMATION], found, run=None, in_flight=_not_spoken_of(broker.id, lines), at=at
    )
    done.breaks, done.closed = [*folded.opened, *folded.standing], len(folded.closed)
    body = {"broker": broker.code, "source": source, **done.as_json()}
    told_of = Entry(SYSTEM_STREAM, "confirmations.received", broker.code, json.dumps({"data": body}))
    journal.append([*folded.entries, told_of], actor=actor, at=at)
    return done


def _in_force(told: Iterable[Line]) -> list[Line]:
    """Return the confirmations in force: one that is undone by another of the same hand says nothing any more."""
    lines = [x for x in told if x.section == FILL]
    undone = {(x.account_id, x.undoes) for x in lines if x.undoes}
    return [x for x in lines if x.action != "bust" and (x.account_id, x.reference) not in undone]


def _executions(broker_id: int, lines: Sequence[Line]) -> dict[int, list[Execution]]:
    """Return the executions that each line is about, in the version that is last: its own, else all those of its order."""
    named = _ids(_NAMED, broker_id, [(x.line, x.account_id, x.reference) for x in lines])
    rest = [x for x in lines if x.line not in named]
    named |= _ids(_OF_ORDERS, broker_id, [(x.line, x.account_id, x.order_reference) for x in rest])
    last = dict(sql.run(_VERSIONS, [[pk for ids in named.values() for pk in ids]]).fetchall())
    rows = Execution.objects.select_related("order__instrument").in_bulk(set(last.values()))
    return {number: [rows[last[pk]] for pk in ids] for number, ids in named.items()}


def _ids(statement: str, broker_id: int, asked: Sequence[tuple[int, int, str]]) -> dict[int, list[UUID]]:
    numbers, accounts, references = (list(c) for c in zip(*asked, strict=True)) if asked else ([], [], [])
    found: defaultdict[int, list[UUID]] = defaultdict(list)
    values = {"broker": broker_id, "numbers": numbers, "accounts": accounts, "references": references}
    for number, pk in sql.run(statement, values).fetchall():
        found[number].append(pk)
    return dict(found)


def _differences(
    line: Line, parts: Sequence[Execution], tolerances: Tolerances
) -> dict[str, dict[str, str | None]] | None:
    """Return what is told otherwise; None where we know nothing of the trade."""
    if not parts:
        return None
    if parts[0].kind == Execution.Kind.BUST:
        return {"busted": {"ours": "busted", "theirs": "in force"}}
    differing = differences(whole([_ours(e) for e in parts]), _theirs(line), tolerances)
    instrument = parts[0].order.instrument
    if line.instrument_id is not None and line.instrument_id != instrument.pk:
        differing["symbol"] = {"ours": instrument.symbol, "theirs": line.name}
    return differing


def _ours(execution: Execution) -> Terms:
    quantity, price, fees = execution.quantity, execution.price, execution.fees
    net = None if fees is None else net_of(execution.side, quantity, price, fees)
    return Terms(execution.side, quantity, price, fees, net, execution.settle_date)


def _theirs(line: Line) -> Terms:
    fees, net = (None if v is None else Decimal(v) for v in (line.fees, line.amount))
    settles = date.fromisoformat(line.settles) if line.settles else None
    quantity, price = Decimal(line.quantity or 0), Decimal(line.price or 0)
    return Terms(line.side, quantity, price, fees, None if net is None else abs(net), settles)


def _found(line: Line, parts: Sequence[Execution], differing: dict[str, dict[str, str | None]] | None) -> Found:
    ours: Decimal | None = None
    theirs: Decimal | None = Decimal(line.quantity or 0)
    cause = NOT_BOOKED
    if differing is not None:
        cause = BUSTED if "busted" in differing else FEES if set(differing) <= {"fees", "net"} else TERMS
        ours, theirs = telling(differing)
    executions = [str(e.pk) for e in parts]
    return Found(
        kind=Kind.CONFIRMATION, account_id=line.account_id, instrument_id=line.instrument_id, subject=line.reference,
        currency=line.currency, ours=ours, theirs=theirs, cause=cause,
        detail={"differences": differing or {}, "executions": executions, "at": line.at},
    )  # fmt: skip


def _row(
    broker_id: int,
    line: Line,
    execution: Execution,
    differing: dict[str, Any],
    source: str,
    actor: Actor,
    at: datetime,
) -> tuple[Any, ...]:
    state, told = Confirmation.State.MISMATCHED if differing else Confirmation.State.MATCHED, _theirs(line)
    return (
        uuid7(), execution.pk, broker_id, line.reference, state, told.quantity, told.price, told.fees, told.net,
        told.settles, json.dumps(differing), source, at, actor.name[:150],
    )  # fmt: skip


def _not_spoken_of(broker_id: int, lines: Sequence[Line]) -> set[tuple[str, int | None, str]]:
    """Return the breaks that these confirmations say nothing of: they stand as they are."""
    said = {(x.account_id, x.reference) for x in lines}
    open_ones = Break.objects.filter(broker_id=broker_id, kind=Kind.CONFIRMATION).exclude(state=Break.State.CLOSED)
    keys = open_ones.values_list("account_id", "subject")
    return {(str(Kind.CONFIRMATION), a, s) for a, s in keys if (a, s) not in said}


LATE = timedelta(days=1)
"""After so long an execution should have been confirmed."""


__all__ = ["LATE", "BadFile", "Confirmed", "confirm_answers", "confirm_file", "unconfirmed"]
