"""Comparing fills and open orders with what a broker says of them; positions and cash are compared by the books."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters.port import Report, ReportKind
from oms.kernel.decimals import ZERO, money, text
from oms.kernel.ids import first_id
from oms.kernel.json import rfc3339
from oms.runtime import sql
from orders.states import CLOSED
from portfolio.domain.breaks import (
    BUSTED,
    DIFFERENCES_MAX,
    FEES,
    NOT_BOOKED,
    NOT_TOLD,
    TERMS,
    Found,
    Tolerances,
    amounts,
)
from portfolio.models import Break, Statement
from portfolio.reconciling import WORK_MEMORY, Compared, Key

Kind = Break.Kind
DESK = "desk-"
"""What our own ids of executions begin with: entered by hand, no broker has them."""
ALIKE = timedelta(days=1)
"""How far apart in time a fill entered by hand and the broker's own may lie and be the same."""
REUSED = timedelta(hours=12)
"""Further apart than this, two executions of one id are two: the broker begins its numbers anew each day."""
ORDERS_MAX = 200_000


class Fill(NamedTuple):
    """A fill as one side has it; `id` is ours."""

    account_id: int
    reference: str
    side: str
    quantity: Decimal
    price: Decimal
    fees: Decimal | None
    at: datetime
    instrument_id: int | None
    order_reference: str = ""
    id: UUID | None = None

    @property
    def signed(self) -> Decimal:
        return self.quantity if self.side == "buy" else -self.quantity

    @property
    def cash(self) -> Decimal:
        return -money(self.signed * self.price) - (self.fees or ZERO)


@dataclass(slots=True)
class Fills(Compared):
    """Fills compared; with what those that differ add up to, which is what positions and cash must differ by."""

    quantities: dict[Key, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    cash: dict[tuple[int, str], Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    newest_theirs: datetime | None = None
    unknown: list[Fill] = field(default_factory=list)  # ours that they don't tell

    def count(self, fill: Fill, sign: int) -> None:
        """Count a fill that only one side has for what positions and cash differ by."""
        if fill.instrument_id is None:
            return
        self.quantities[fill.account_id, fill.instrument_id] += sign * fill.signed
        currency = brokers.instruments()[fill.instrument_id].currency
        self.cash[fill.account_id, currency] += sign * fill.cash


_OURS = """
  SELECT k.account_id, e.broker_execution_id AS reference, e.side, e.quantity, e.price, e.fees, e.executed_at AS at, e.id
  FROM orders_execution e
  JOIN portfolio_brokerlink k ON k.broker_account_id = e.broker_account_id AND k.broker_id = e.broker_id
  WHERE e.broker_id = %(broker)s AND e.id >= %(first)s AND e.executed_at >= %(since)s AND e.executed_at <= %(as_of)s
    AND e.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM orders_execution r WHERE r.ref_id = e.id)
    AND NOT (starts_with(e.broker_execution_id, 'desk-') AND e.ref_id IS NULL)
    AND (%(accounts)s::bigint[] IS NULL OR k.account_id = ANY(%(accounts)s::bigint[]))
"""
_THEIRS = """
  SELECT l.account_id, l.reference, l.side, l.quantity, l.price, l.fees, l.at, l.instrument_id, l.order_reference
  FROM portfolio_statementline l
  WHERE l.statement_id = %(statement)s AND l.section = 'fill' AND l.action <> 'bust'
    AND NOT EXISTS (SELECT 1 FROM portfolio_statementline u WHERE u.statement_id = %(statement)s AND u.section = 'fill'
      AND u.undoes <> '' AND u.undoes = l.reference AND u.account_id = l.account_id)
"""
_FILLS = f"""
WITH ours AS ({_OURS}), theirs AS ({_THEIRS}), both_sides AS MATERIALIZED (
  SELECT account_id, reference, o.side AS o_side, o.quantity AS o_quantity, o.price AS o_price, o.fees AS o_fees, o.at AS o_at,
    o.id, t.side AS t_side, t.quantity AS t_quantity, t.price AS t_price, t.fees AS t_fees, t.at AS t_at, t.instrument_id,
    t.order_reference,
    o.id IS NULL OR t.at IS NULL OR o.quantity <> t.quantity OR abs(o.price - t.price) > %(price)s
      OR (o.side = 'buy') <> (t.side = 'buy') OR (t.fees IS NOT NULL AND abs(coalesce(o.fees, 0) - t.fees) > %(fees)s) AS differs
  FROM ours o FULL JOIN theirs t USING (account_id, reference)
), counts AS (
  SELECT count(o_at) AS n_ours, count(t_at) AS n_theirs,
    count(*) FILTER (WHERE t_at IS NULL AND o_at <= %(settled_at)s) AS n_missing,
    count(*) FILTER (WHERE differs) AS n_differ, max(t_at) AS newest
  FROM both_sides
)
SELECT c.*, b.* FROM counts c LEFT JOIN (SELECT * FROM both_sides WHERE differs LIMIT %(most)s) b ON true
"""


def compare_fills(
    broker_id: int, statement: Statement, *, tolerances: Tolerances, accounts: Sequence[int] | None = None
) -> Fills:
    """Compare the fills in force of the statement's time, by the broker's ids; one side's corrections meet the other's
    originals, and what was entered here by hand meets what it was entered for."""
    grace = timedelta(seconds=float(tolerances.grace_seconds))
    with sql.set_against_set(WORK_MEMORY):
        rows = sql.run(
            _FILLS,
            {
                "broker": broker_id, "statement": statement.id, "since": statement.since, "as_of": statement.as_of,
                "first": first_id(statement.since), "settled_at": statement.as_of - grace, "price": tolerances.price,
                "fees": tolerances.fees, "most": DIFFERENCES_MAX + 1, "accounts": accounts,
            },
        ).fetchall()  # fmt: skip
    n_ours, n_theirs, n_missing, n_differ, newest = rows[0][:5]
    done = Fills(n_ours, n_theirs, n_missing, n_differ, newest_theirs=newest)
    if done.too_many:
        return done
    ours: list[Fill] = []
    theirs: list[Fill] = []
    pairs: list[tuple[Fill, Fill]] = []
    for row in rows:
        if row[5] is None:
            continue
        mine, other = _sides(row)
        if mine and other and abs(mine.at - other.at) > REUSED:
            theirs.append(other._replace(reference=of_the_day(other.reference, other.at)))
            if not _told_then(statement, mine):
                ours.append(mine)
        elif mine and other:
            pairs.append((mine, other))
        elif mine:
            ours.append(mine)
        elif other:
            theirs.append(other)
    ours = _with_instruments(ours)
    pairs += _pair_versions(broker_id, ours, theirs) + _pair_days(ours, theirs)
    _pair_by_hand(broker_id, theirs)
    for mine, other in pairs:
        _judge_pair(done, mine, other, tolerances)
    _judge_alone(done, ours, theirs, statement, grace)
    return done


def _sides(row: Sequence[Any]) -> tuple[Fill | None, Fill | None]:
    (
        account_id, reference, o_side, o_quantity, o_price, o_fees, o_at, own_id, t_side, t_quantity, t_price, t_fees, t_at,
        instrument_id, order_reference, _,
    ) = row[5:]  # fmt: skip
    mine = Fill(account_id, reference, o_side, o_quantity, o_price, o_fees, o_at, None, "", own_id) if own_id else None
    other = None
    if t_at is not None:
        other = Fill(
            account_id, reference, t_side, t_quantity, t_price, t_fees, t_at, instrument_id, order_reference or ""
        )
    return mine, other


def _with_instruments(fills: Sequence[Fill]) -> list[Fill]:
    """Return our fills with the instrument that their orders are in."""
    found = sql.run(
        "SELECT e.id, o.instrument_id FROM orders_execution e JOIN orders_order o ON o.id = e.order_id "
        "WHERE e.id = ANY(%s::uuid[])",
        [[f.id for f in fills]],
    )
    instruments = dict(found.fetchall())
    return [f._replace(instrument_id=instruments[f.id]) for f in fills]


_CHAIN = """
WITH RECURSIVE chain AS (
  SELECT id AS live, id, ref_id, broker_execution_id FROM orders_execution WHERE id = ANY(%s::uuid[])
  UNION ALL SELECT c.live, e.id, e.ref_id, e.broker_execution_id FROM chain c JOIN orders_execution e ON e.id = c.ref_id
) SELECT live, broker_execution_id FROM chain WHERE id <> live
"""
_LIVE_NOW = """
SELECT k.account_id, t.reference, e.side, e.quantity, e.price, e.fees, e.executed_at, o.instrument_id, e.id
FROM unnest(%(accounts)s::bigint[], %(references)s::varchar[]) t(account_id, reference)
JOIN portfolio_brokerlink k ON k.account_id = t.account_id AND k.broker_id = %(broker)s
JOIN orders_execution x ON x.broker_account_id = k.broker_account_id AND x.broker_execution_id = t.reference
JOIN LATERAL (
  WITH RECURSIVE later AS (
    SELECT x.id UNION ALL SELECT r.id FROM later l JOIN orders_execution r ON r.ref_id = l.id)
  SELECT id FROM later) v ON true
JOIN orders_execution e ON e.id = v.id AND e.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM orders_execution r WHERE r.ref_id = e.id)
JOIN orders_order o ON o.id = e.order_id
"""


def _pair_versions(broker_id: int, ours: list[Fill], theirs: list[Fill]) -> list[tuple[Fill, Fill]]:
    """Take out of both sides the versions of one and the same fill under different ids or times, and return them."""
    pairs = []
    waiting = {(t.account_id, t.reference): t for t in theirs}
    if ours and waiting:
        mine = {f.id: f for f in ours}
        for live, reference in sql.run(_CHAIN, [list(mine)]).fetchall():
            fill = mine.get(live)
            other = waiting.pop((fill.account_id, reference), None) if fill else None
            if fill and other:
                pairs.append((fill, other))
                ours.remove(fill)
                theirs.remove(other)
    if waiting:
        known = sql.run(
            _LIVE_NOW,
            {"broker": broker_id, "accounts": [a for a, _ in waiting], "references": [r for _, r in waiting]},
        ).fetchall()
        for account_id, reference, side, quantity, price, fees, at, instrument_id, pk in known:
            other = waiting[account_id, reference]
            theirs.remove(other)
            ours[:] = [f for f in ours if f.id != pk]
            if abs(at - other.at) > REUSED:
                theirs.append(other._replace(reference=of_the_day(reference, other.at)))
                continue
            pairs.append((Fill(account_id, reference, side, quantity, price, fees, at, instrument_id, "", pk), other))
    return pairs


def of_the_day(reference: str, at: datetime) -> str:
    """Return the id that an execution is adopted under where the broker has used its own for another before."""
    return f"{reference[:55]}@{at:%Y%m%d}"


def _told_then(statement: Statement, mine: Fill) -> bool:
    """Tell whether a statement has a fill of ours under its id at its own time as well."""
    found = sql.run(
        "SELECT 1 FROM portfolio_statementline WHERE statement_id = %s AND section = 'fill' AND account_id = %s "
        "AND reference = %s AND at BETWEEN %s AND %s LIMIT 1",
        [statement.id, mine.account_id, mine.reference, mine.at - REUSED, mine.at + REUSED],
    )
    return found.fetchone() is not None


def _pair_days(ours: list[Fill], theirs: list[Fill]) -> list[tuple[Fill, Fill]]:
    """Take out of both sides what was adopted under an id of its day."""
    named = {(f.account_id, f.reference): f for f in ours}
    pairs = [(mine, f) for f in theirs if (mine := named.get((f.account_id, f.reference)))]
    for mine, other in pairs:
        ours.remove(mine)
        theirs.remove(other)
    return pairs


def _pair_by_hand(broker_id: int, theirs: list[Fill]) -> None:
    """Take out of their side what was entered here by hand already: same holding, side, quantity and price, same day."""
    if not theirs:
        return
    first, last = min(f.at for f in theirs) - ALIKE, max(f.at for f in theirs) + ALIKE
    entered = sql.run(
        "SELECT o.account_id, o.instrument_id, e.side = 'buy', e.quantity, e.price, e.executed_at FROM orders_execution e "
        "JOIN orders_order o ON o.id = e.order_id WHERE e.broker_id = %s AND e.id >= %s "
        "AND starts_with(e.broker_execution_id, 'desk-') AND e.ref_id IS NULL AND e.executed_at BETWEEN %s AND %s AND o.origin = 'external' AND e.kind = 'trade' "
        "AND NOT EXISTS (SELECT 1 FROM orders_execution r WHERE r.ref_id = e.id) "
        "AND NOT EXISTS (SELECT 1 FROM portfolio_break b WHERE b.resolution->'executions' ? e.id::text)",
        [broker_id, first_id(first), first, last],
    ).fetchall()
    for account_id, instrument_id, buys, quantity, price, at in entered:
        terms = (account_id, instrument_id, buys, quantity, price)
        alike = [
            f
            for f in theirs
            if (f.account_id, f.instrument_id, f.side == "buy", f.quantity, f.price) == terms
            and abs(f.at - at) <= ALIKE
        ]
        if alike:
            theirs.remove(min(alike, key=lambda f: abs(f.at - at)))


def _judge_pair(done: Fills, mine: Fill, other: Fill, tolerances: Tolerances) -> None:
    terms = mine.quantity != other.quantity or abs(mine.price - other.price) > tolerances.price
    terms = terms or (mine.side == "buy") != (other.side == "buy")
    charged = other.fees is not None and abs((mine.fees or ZERO) - other.fees) > tolerances.fees
    if not terms and not charged:
        return
    if mine.instrument_id is None:
        [mine] = _with_instruments([mine])
    detail = {
        "at": rfc3339(mine.at), "execution": str(mine.id),
        "ours": {"side": mine.side, **amounts(quantity=mine.quantity, price=mine.price, fees=mine.fees)},
        "theirs": {"side": other.side, **amounts(quantity=other.quantity, price=other.price, fees=other.fees)},
    }  # fmt: skip
    proposal: dict[str, Any] | None = None
    if terms and (mine.side == "buy") == (other.side == "buy"):
        proposal = {"action": "correct", **amounts(quantity=other.quantity, price=other.price)}
    elif not terms:
        currency = brokers.instruments()[mine.instrument_id or 0].currency
        more = (other.fees or ZERO) - (mine.fees or ZERO)
        proposal = {"action": "fees", "currency": currency, **amounts(amount=-more)}
    numbers = (mine.fees, other.fees) if not terms else (mine.quantity, other.quantity)
    if terms and mine.quantity == other.quantity:
        numbers = (mine.price, other.price)
    done.count(other._replace(instrument_id=mine.instrument_id), 1)
    done.count(mine, -1)
    done.found.append(
        Found(
            kind=Kind.FILL, account_id=mine.account_id, instrument_id=mine.instrument_id, subject=mine.reference,
            ours=numbers[0], theirs=numbers[1], cause=TERMS if terms else FEES, detail=detail, proposal=proposal,
        )
    )  # fmt: skip


def _judge_alone(
    done: Fills, ours: Sequence[Fill], theirs: Sequence[Fill], statement: Statement, grace: timedelta
) -> None:
    busted = _busted(statement, ours)
    settled = statement.as_of - grace
    for fill in ours:
        if fill.at > settled and fill.reference not in busted:
            done.in_flight.add((Kind.UNKNOWN_FILL, fill.account_id, fill.reference))
            continue
        done.unknown.append(fill)
        done.count(fill, -1)
        done.found.append(
            Found(
                kind=Kind.UNKNOWN_FILL, account_id=fill.account_id, instrument_id=fill.instrument_id,
                subject=fill.reference, ours=fill.quantity, theirs=None,
                cause=BUSTED if fill.reference in busted else NOT_TOLD,
                detail=_told(fill) | {"execution": str(fill.id)}, proposal={"action": "bust"},
            )
        )  # fmt: skip
    for fill in theirs:
        if fill.at > settled:
            done.in_flight.add((Kind.MISSING_FILL, fill.account_id, fill.reference))
            continue
        done.count(fill, 1)
        adopt = {"action": "adopt", **_told(fill)} if fill.instrument_id else None
        done.found.append(
            Found(
                kind=Kind.MISSING_FILL, account_id=fill.account_id, instrument_id=fill.instrument_id, subject=fill.reference,
                ours=None, theirs=fill.quantity, cause=NOT_BOOKED, detail=_told(fill), proposal=adopt,
            )
        )  # fmt: skip


def _told(fill: Fill) -> dict[str, Any]:
    told: dict[str, Any] = {"at": rfc3339(fill.at), "side": fill.side, "reference": fill.reference}
    if fill.order_reference:
        told["order_reference"] = fill.order_reference
    return told | amounts(quantity=fill.quantity, price=fill.price, fees=fill.fees)


def _busted(statement: Statement, fills: Sequence[Fill]) -> set[str]:
    """Return those ids of ours that the statement says were undone."""
    if not fills:
        return set()
    found = sql.run(
        "SELECT undoes FROM portfolio_statementline WHERE statement_id = %s AND section = 'fill' AND action = 'bust' "
        "AND undoes = ANY(%s)",
        [statement.id, [f.reference for f in fills]],
    )
    return {r[0] for r in found}


def unknown_here(broker_id: int, reports: Sequence[Report]) -> list[Report]:
    """Return those executions, busts and corrections of a broker's answer that are not recorded here and that can be:
    their orders are known, and so is what they undo, here or among them."""
    asked = [r for r in reports if r.execution_id and r.kind in (ReportKind.TRADE, ReportKind.BUST, ReportKind.CORRECT)]
    names = sorted({n for r in asked for n in (r.execution_id, r.ref_execution_id) if n})
    known = {
        n
        for (n,) in sql.run(
            "SELECT broker_execution_id FROM orders_execution WHERE broker_id = %s AND broker_execution_id = ANY(%s)",
            [broker_id, names],
        )
    }
    new = [r for r in asked if r.execution_id not in known]
    if not new:
        return []
    ids = {n for r in new for n in (r.client_order_id, r.orig_client_order_id) if n}
    orders = {
        n
        for (n,) in sql.run(
            "SELECT client_order_id FROM orders_submission WHERE broker_id = %s AND client_order_id = ANY(%s) "
            "UNION SELECT broker_order_id FROM orders_childorder WHERE broker_id = %s AND broker_order_id = ANY(%s)",
            [broker_id, sorted(ids), broker_id, sorted({r.broker_order_id for r in new if r.broker_order_id})],
        )
    }
    coming = {r.execution_id for r in asked}
    return [
        r
        for r in new
        if orders & {r.client_order_id, r.orig_client_order_id, r.broker_order_id}
        and (r.ref_execution_id is None or r.ref_execution_id in known or r.ref_execution_id in coming)
    ]


# ---------------------------------------------------------------- open orders


class Working(NamedTuple):
    """An order that works here, by its name at the broker."""

    account_id: int
    client_order_id: str
    broker_order_id: str
    leaves: Decimal
    updated_at: datetime
    order_id: UUID
    instrument_id: int
    side: str
    undecided: bool


def working_here(broker_id: int, accounts: Sequence[int] | None = None) -> list[Working]:
    """Return what works at a broker as far as we know; `undecided` while a request about it is under way."""
    rows = sql.run(
        """
        SELECT o.account_id, c.client_order_id, c.broker_order_id, c.leaves_quantity, c.updated_at, o.id, o.instrument_id, o.side,
          EXISTS (SELECT 1 FROM orders_submission s WHERE s.child_id = c.id AND (s.state IN ('prepared', 'sent', 'unknown')
            OR (s.kind <> 'new' AND s.resolved_at IS NULL AND s.state = 'accepted')))
        FROM orders_childorder c JOIN orders_order o ON o.id = c.order_id
        WHERE c.broker_id = %s AND c.leaves_quantity > 0 AND c.status <> ALL(%s)
          AND (%s::bigint[] IS NULL OR o.account_id = ANY(%s::bigint[]))
        ORDER BY c.id LIMIT %s
        """,
        [broker_id, sorted(CLOSED), accounts, accounts, ORDERS_MAX],
    )
    return [Working(*r) for r in rows]


def compare_orders(
    statement: Statement, working: Sequence[Working], *, tolerances: Tolerances, broker_id: int
) -> Compared:
    """Compare what works here with what works there; what is ended here and works there is a difference, too."""
    settled = statement.as_of - timedelta(seconds=float(tolerances.grace_seconds))
    told = sql.run(
        "SELECT account_id, reference, order_reference, instrument_id, name, side, quantity, price FROM portfolio_statementline "
        "WHERE statement_id = %s AND section = 'order' ORDER BY id LIMIT %s",
        [statement.id, ORDERS_MAX],
    ).fetchall()
    by_name = {(row[0], name): row for row in told for name in row[1:3] if name}
    done, met = Compared(ours=len(working), theirs=len(told)), set()
    for mine in working:
        row = by_name.get((mine.account_id, mine.broker_order_id)) or by_name.get(
            (mine.account_id, mine.client_order_id)
        )
        subject = mine.broker_order_id or mine.client_order_id
        young = mine.undecided or mine.updated_at > settled
        if row is not None:
            met.add((row[0], row[1]))
            if row[6] != mine.leaves:
                _put(done, Kind.ORDER, mine, subject, row[6], TERMS, young=young)
            continue
        done.missing += not young
        _put(done, Kind.UNKNOWN_ORDER, mine, subject, None, NOT_TOLD, young=young)
    rest = [row for row in told if (row[0], row[1]) not in met]
    ended = _ended_here(broker_id, rest)
    for row in rest:
        _judge_theirs(done, row, ended.get(row[1]) or ended.get(row[2]), settled)
    done.differing = len(done.found)
    return done


def _judge_theirs(done: Compared, row: Sequence[Any], mine: Working | None, settled: datetime) -> None:
    account_id, reference, order_reference, instrument_id, name, side, quantity, price = row
    if mine is not None:
        young = mine.undecided or mine.updated_at > settled
        _put(done, Kind.ORDER, mine, reference, quantity, TERMS, young=young)
        return
    detail = {
        "side": side,
        "symbol": name,
        "order_reference": order_reference,
        **amounts(quantity=quantity, price=price),
    }
    done.found.append(
        Found(
            kind=Kind.MISSING_ORDER, account_id=account_id, instrument_id=instrument_id, subject=reference, ours=None,
            theirs=quantity, cause=NOT_BOOKED, detail=detail, proposal={"action": "adopt"} if instrument_id else None,
        )
    )  # fmt: skip


def _put(
    done: Compared, kind: str, mine: Working, subject: str, theirs: Decimal | None, cause: str, *, young: bool
) -> None:
    if young:
        done.in_flight.add((kind, mine.account_id, subject))
        return
    detail = {
        "order": str(mine.order_id),
        "client_order_id": mine.client_order_id,
        "side": mine.side,
        "leaves": text(mine.leaves),
    }
    done.found.append(
        Found(
            kind=kind, account_id=mine.account_id, instrument_id=mine.instrument_id, subject=subject, ours=mine.leaves,
            theirs=theirs, cause=cause, detail=detail,
            proposal={"action": "close"} if kind == Kind.UNKNOWN_ORDER else None,
        )
    )  # fmt: skip


def _ended_here(broker_id: int, rows: Sequence[Sequence[Any]]) -> dict[str, Working]:
    """Return those orders that are ours but don't work here, by the broker's names and by ours."""
    names = sorted({n for row in rows for n in row[1:3] if n})
    if not names:
        return {}
    found = sql.run(
        """
        SELECT o.account_id, c.client_order_id, c.broker_order_id, c.leaves_quantity, c.updated_at, o.id, o.instrument_id, o.side,
          EXISTS (SELECT 1 FROM orders_submission s WHERE s.child_id = c.id AND s.state IN ('prepared', 'sent', 'unknown'))
        FROM orders_childorder c JOIN orders_order o ON o.id = c.order_id
        WHERE c.id = ANY(ARRAY(
          SELECT id FROM orders_childorder WHERE broker_id = %(broker)s AND broker_order_id = ANY(%(names)s)
          UNION SELECT child_id FROM orders_submission WHERE broker_id = %(broker)s AND client_order_id = ANY(%(names)s)))
        """,
        {"broker": broker_id, "names": names},
    )
    ended = [Working(*r) for r in found]
    return {name: w for w in ended for name in (w.client_order_id, w.broker_order_id) if name}
