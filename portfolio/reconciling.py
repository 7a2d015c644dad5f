"""Comparing our books with what a broker says, and keeping the differences from run to run.

Positions and cash are compared here, set by set in the database; fills and open orders by the desk, which owns them. A
difference becomes a `Break` that keeps its id until a run no longer sees it. Nothing here changes the books.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as reference
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import json
from oms.kernel.decimals import ZERO, text
from oms.kernel.ids import first_id, uuid7
from oms.runtime import sql
from oms.runtime.transactions import require_transaction
from portfolio.breaks import break_out
from portfolio.domain.breaks import (
    DIFFERENCES_MAX,
    PERSISTS_RUNS,
    TRANSFER,
    UNSETTLED,
    Found,
    Tolerances,
    amounts,
    cause_of_cash,
    cause_of_position,
)
from portfolio.domain.profiles import SETTLE_DATE
from portfolio.models import Account, Break, Reconciliation, Statement

Key = tuple[int, int]
"""Account and instrument."""
Kind, State = Break.Kind, Break.State
KINDS = {
    "position": (Kind.POSITION,),
    "cash": (Kind.CASH,),
    "fill": (Kind.MISSING_FILL, Kind.UNKNOWN_FILL, Kind.FILL),
    "order": (Kind.MISSING_ORDER, Kind.UNKNOWN_ORDER, Kind.ORDER),
}
"""The kinds of breaks that comparing a section finds, and so may close."""
STANDING_ACTIONS = ("accept", "fees")
"""Resolutions under which a difference may stand as it is; after any other it must be gone."""
RECENT_DAYS = 40
WORK_MEMORY = "256MB"
"""What one comparison may hold of both sides."""
_FIELDS = (
    "ours", "theirs", "detail", "cause", "state", "proposal", "runs", "seen_at", "seen_by", "closed_at", "closed_by",
    "closed_as",
)  # fmt: skip


@dataclass(slots=True)
class Compared:
    """One section compared: how many things each side has, how many of ours they don't name, and what differs."""

    ours: int = 0
    theirs: int = 0
    missing: int = 0
    differing: int = 0
    found: list[Found] = field(default_factory=list)
    in_flight: set[tuple[str, int | None, str]] = field(default_factory=set)  # keys too young to be judged

    @property
    def too_many(self) -> bool:
        """Tell whether so much differs that nothing of it is worth a break of its own."""
        return self.differing > DIFFERENCES_MAX

    def told(self, statement: Statement) -> dict[str, Any]:
        """Return the section as the run keeps it."""
        return {
            "statement": str(statement.id),
            "ours": self.ours,
            "theirs": self.theirs,
            "breaks": len(self.found),
            "in_flight": len(self.in_flight),
        }


_POSITIONS = """
WITH later AS (
  SELECT t.account_id, t.instrument_id, sum(t.quantity) AS quantity FROM portfolio_trade t
  WHERE t.id >= %(after)s AND t.executed_at > %(as_of)s AND t.broker_id = %(broker)s AND t.kind <> 'bust'
    AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)
  GROUP BY 1, 2
), unsettled AS (
  SELECT s.account_id, s.instrument_id, sum(s.quantity - s.settled_quantity) AS quantity FROM portfolio_settlement s
  JOIN portfolio_trade t ON t.id = s.trade_id AND t.broker_id = %(broker)s AND t.executed_at <= %(as_of)s
  WHERE s.state IN ('pending', 'partial', 'failed') GROUP BY 1, 2
), ours AS (
  SELECT p.account_id, p.instrument_id, coalesce(u.quantity, 0) AS unsettled,
    p.quantity - coalesce(l.quantity, 0) - CASE WHEN %(settled)s THEN coalesce(u.quantity, 0) ELSE 0 END AS quantity
  FROM portfolio_brokerposition p LEFT JOIN later l USING (account_id, instrument_id)
  LEFT JOIN unsettled u USING (account_id, instrument_id)
  WHERE p.broker_id = %(broker)s AND (%(accounts)s::bigint[] IS NULL OR p.account_id = ANY(%(accounts)s::bigint[]))
), theirs AS (
  SELECT account_id, instrument_id, min(name) AS name, sum(quantity) AS quantity FROM portfolio_statementline
  WHERE statement_id = %(statement)s AND section = 'position'
  GROUP BY account_id, instrument_id, CASE WHEN instrument_id IS NULL THEN name END
), both_sides AS MATERIALIZED (
  SELECT account_id, instrument_id, t.name, o.quantity AS ours, t.quantity AS theirs, coalesce(o.unsettled, 0) AS unsettled,
    abs(coalesce(o.quantity, 0) - coalesce(t.quantity, 0)) > %(tolerance)s AS differs
  FROM ours o FULL JOIN theirs t USING (account_id, instrument_id)
), counts AS (
  SELECT count(*) FILTER (WHERE ours <> 0) AS n_ours, count(*) FILTER (WHERE theirs <> 0) AS n_theirs,
    count(*) FILTER (WHERE ours <> 0 AND coalesce(theirs, 0) = 0) AS n_missing, count(*) FILTER (WHERE differs) AS n_differ
  FROM both_sides
)
SELECT c.*, b.account_id, b.instrument_id, b.name, b.ours, b.theirs, b.unsettled FROM counts c
LEFT JOIN (SELECT * FROM both_sides WHERE differs LIMIT %(most)s) b ON true
"""


def compare_positions(
    broker_id: int,
    statement: Statement,
    *,
    basis: str,
    tolerances: Tolerances,
    fills: Mapping[Key, Decimal],
    busy: Collection[Key],
    accounts: Sequence[int] | None = None,
) -> Compared:
    """Compare positions as of the statement's time. `fills`: what differing fills add up to; `busy`: what moves just now;
    `accounts`: those that the statement speaks of, where it is not all that the broker keeps."""
    with sql.set_against_set(WORK_MEMORY):
        rows = sql.run(
            _POSITIONS,
            {
                "broker": broker_id, "statement": statement.id, "as_of": statement.as_of, "after": first_id(statement.as_of),
                "settled": basis == SETTLE_DATE, "tolerance": tolerances.quantity, "most": DIFFERENCES_MAX + 1,
                "accounts": accounts,
            },
        ).fetchall()  # fmt: skip
    done = Compared(*rows[0][:4])
    instruments = reference.instruments()
    if done.too_many:
        return done
    prices = _prices(broker_id, [(r[4], r[5]) for r in rows if r[4] is not None])
    for *_, account_id, instrument_id, name, ours, theirs, unsettled in rows:
        if account_id is None:
            continue
        subject = instruments[instrument_id].symbol if instrument_id else name
        if (account_id, instrument_id) in busy:
            done.in_flight.add((Kind.POSITION, account_id, subject))
            done.missing -= bool(ours) and not theirs
            continue
        more = (theirs or ZERO) - (ours or ZERO)
        cause = cause_of_position(
            ours, theirs, unsettled=ZERO if basis == SETTLE_DATE else unsettled,
            fills=fills.get((account_id, instrument_id), ZERO),
        )  # fmt: skip
        proposal = _position_proposal(more, prices.get((account_id, instrument_id)), cause) if instrument_id else None
        done.found.append(
            Found(
                kind=Kind.POSITION, account_id=account_id, instrument_id=instrument_id, subject=subject, ours=ours or ZERO,
                theirs=theirs or ZERO, cause=cause, detail=amounts(difference=more, unsettled=unsettled or None),
                proposal=proposal,
            )
        )  # fmt: skip
    return done


def _position_proposal(more: Decimal, price: Decimal | None, cause: str) -> dict[str, str] | None:
    """Return the trade that would bring our quantity to theirs; none where waiting or the fills will."""
    if cause in (UNSETTLED, "fills"):
        return None
    return {"action": "adjust", **amounts(quantity=more, price=price)}


def _prices(broker_id: int, keys: Sequence[Key]) -> dict[Key, Decimal]:
    """Return what one unit is worth for a correction: what ours cost on average, else the middle of the market."""
    held = sql.run(
        "SELECT p.account_id, p.instrument_id, abs(p.cost / p.quantity) FROM portfolio_position p "
        "JOIN unnest(%s::bigint[], %s::bigint[]) k(a, i) ON k.a = p.account_id AND k.i = p.instrument_id WHERE p.quantity <> 0",
        [[a for a, _ in keys], [i for _, i in keys]],
    ).fetchall()
    costs = {(a, i): cost for a, i, cost in held}
    quotes = reference.quotes({i for _, i in keys if i})
    found: dict[Key, Decimal] = {}
    for account_id, instrument_id in keys:
        cost = costs.get((account_id, instrument_id))
        quote = quotes.get(instrument_id)
        price = cost or (quote.mid if quote else None)
        if price:
            found[account_id, instrument_id] = price.quantize(Decimal("0.00000001"))
    return found


_CASH = """
WITH later AS (
  SELECT e.account_id, e.currency, sum(e.amount) AS amount FROM portfolio_ledgertransaction x
  JOIN portfolio_ledgerentry e ON e.transaction_id = x.id AND e.code = 'cash' AND e.broker_id = %(broker)s
  LEFT JOIN portfolio_trade t ON x.source_kind = 'execution' AND t.id = x.source_id
  WHERE x.id >= %(after)s AND coalesce(t.executed_at, x.at) > %(as_of)s GROUP BY 1, 2
), unsettled AS (
  SELECT s.account_id, s.currency, sum(s.amount - s.settled_amount) AS amount FROM portfolio_settlement s
  JOIN portfolio_trade t ON t.id = s.trade_id AND t.broker_id = %(broker)s AND t.executed_at <= %(as_of)s
  WHERE s.state IN ('pending', 'partial', 'failed') GROUP BY 1, 2
), ours AS (
  SELECT c.account_id, c.currency, coalesce(u.amount, 0) AS unsettled,
    c.balance - coalesce(l.amount, 0) - CASE WHEN %(settled)s THEN coalesce(u.amount, 0) ELSE 0 END AS amount
  FROM portfolio_brokercash c LEFT JOIN later l USING (account_id, currency) LEFT JOIN unsettled u USING (account_id, currency)
  WHERE c.broker_id = %(broker)s AND (%(accounts)s::bigint[] IS NULL OR c.account_id = ANY(%(accounts)s::bigint[]))
), theirs AS (
  SELECT account_id, currency, sum(amount) AS amount FROM portfolio_statementline
  WHERE statement_id = %(statement)s AND section = 'cash' GROUP BY 1, 2
)
SELECT account_id, currency, o.amount, t.amount, coalesce(o.unsettled, 0) FROM ours o FULL JOIN theirs t USING (account_id, currency)
"""


def compare_cash(
    broker_id: int,
    statement: Statement,
    *,
    basis: str,
    tolerances: Tolerances,
    fills: Mapping[tuple[int, str], Decimal],
    busy: Collection[tuple[int, str]],
    accounts: Sequence[int] | None = None,
) -> Compared:
    """Compare the cash that our postings say is at a broker with what it says, as of the statement's time."""
    with sql.set_against_set(WORK_MEMORY):
        rows = sql.run(
            _CASH,
            {
                "broker": broker_id, "statement": statement.id, "as_of": statement.as_of, "after": first_id(statement.as_of),
                "settled": basis == SETTLE_DATE, "accounts": accounts,
            },
        ).fetchall()  # fmt: skip
    done = Compared()
    differing = []
    for account_id, currency, ours, theirs, unsettled in rows:
        done.ours += bool(ours)
        done.theirs += theirs is not None
        done.missing += bool(ours) and theirs is None
        if abs((ours or ZERO) - (theirs or ZERO)) > tolerances.cash:
            differing.append((account_id, currency, ours, theirs, unsettled))
    done.differing = len(differing)
    if done.too_many:
        return done
    paid, moved = _recent_cash(statement.as_of, sorted({d[0] for d in differing}))
    for account_id, currency, ours, theirs, unsettled in differing:
        if (account_id, currency) in busy:
            done.in_flight.add((Kind.CASH, account_id, currency))
            done.missing -= bool(ours) and theirs is None
            continue
        more = (theirs or ZERO) - (ours or ZERO)
        cause = cause_of_cash(
            ours, theirs, unsettled=ZERO if basis == SETTLE_DATE else unsettled, tolerance=tolerances.cash,
            fills=fills.get((account_id, currency), ZERO), dividends=paid[account_id, currency],
            transfers=moved[account_id, currency],
        )  # fmt: skip
        proposal = None
        if cause not in (UNSETTLED, "fills"):
            action = "allocate" if cause in (TRANSFER, "dividend") else "adjust"
            proposal = {"action": action, "amount": text(more), "currency": currency}
        done.found.append(
            Found(
                kind=Kind.CASH, account_id=account_id, currency=currency, subject=currency, ours=ours or ZERO,
                theirs=theirs or ZERO, cause=cause, detail=amounts(difference=more, unsettled=unsettled or None),
                proposal=proposal,
            )
        )  # fmt: skip
    return done


def _recent_cash(as_of: datetime, accounts: Sequence[int]) -> tuple[defaultdict[Any, list[Any]], ...]:
    """Return dividends, and transfers, of the last weeks that name no broker, by account and currency."""
    paid: defaultdict[Any, list[Any]] = defaultdict(list)
    moved: defaultdict[Any, list[Any]] = defaultdict(list)
    if accounts:
        rows = sql.run(
            "SELECT e.account_id, e.currency, x.source_kind, e.amount FROM portfolio_ledgertransaction x "
            "JOIN portfolio_ledgerentry e ON e.transaction_id = x.id AND e.code = 'cash' AND e.broker_id IS NULL "
            "WHERE x.account_id = ANY(%s) AND x.source_kind IN ('corporate', 'transfer', 'transfer_in') "
            "AND x.at > %s - make_interval(days => %s) ORDER BY x.id DESC LIMIT 1000",
            [list(accounts), as_of, RECENT_DAYS],
        )
        for account_id, currency, source, amount in rows:
            (paid if source == "corporate" else moved)[account_id, currency].append(amount)
    return paid, moved


def moving(broker_id: int, *, since: datetime) -> tuple[set[Key], set[tuple[int, str]]]:
    """Return the holdings, and the cash, of a broker that were booked on since a time."""
    rows = sql.run(
        "SELECT DISTINCT e.account_id, e.instrument_id, e.currency FROM portfolio_ledgertransaction x "
        "JOIN portfolio_ledgerentry e ON e.transaction_id = x.id AND e.broker_id = %s WHERE x.id >= %s AND x.at >= %s",
        [broker_id, first_id(since), since],
    ).fetchall()
    return {(a, i) for a, i, _ in rows if i}, {(a, c) for a, _, c in rows}


# ---------------------------------------------------------------- breaks from run to run


@dataclass(slots=True)
class Folded:
    """What a run did to the breaks: the events that tell it, what closed while it waited, and whom to freeze."""

    entries: list[Entry] = field(default_factory=list)
    opened: list[Break] = field(default_factory=list)
    standing: list[Break] = field(default_factory=list)
    closed: list[Break] = field(default_factory=list)
    withdrawn: list[UUID] = field(default_factory=list)
    freeze: set[str] = field(default_factory=set)


def fold(
    broker_id: int,
    kinds: Collection[str],
    found: Sequence[Found],
    *,
    run: Reconciliation | None,
    in_flight: Collection[tuple[str, int | None, str]] = (),
    window: tuple[datetime, datetime] | None = None,
    at: datetime,
) -> Folded:
    """Fold what a comparison of some kinds found into the breaks of a broker, inside the caller's transaction.

    A break that is seen again keeps its id, its age and its owner; one that is not is closed by this run, unless it is in
    flight or, for fills, lies outside of the `window` that was compared. Several finds under one key count as the last.
    """
    require_transaction()
    sql.run("SELECT 1 FROM brokers_broker WHERE id = %s FOR NO KEY UPDATE", [broker_id])
    known = {
        (b.kind, b.account_id, b.subject): b
        for b in Break.objects.filter(broker_id=broker_id, kind__in=list(kinds)).exclude(state=State.CLOSED)
    }
    done, new, touched = Folded(), [], []
    seen = {f.key: f for f in found}
    codes = dict(Account.objects.values_list("id", "code"))
    for key, difference in seen.items():
        row = known.get(key)
        if row is None:
            row = _opened(broker_id, difference, run, at)
            new.append(row)
            done.opened.append(row)
            done.entries.append(entry(row, "break.opened", codes, at=at))
        else:
            reopened = _seen_again(row, difference, run, at)
            touched.append(row)
            done.standing.append(row)
            if reopened:
                done.entries.append(entry(row, "break.reopened", codes, at=at))
        if row.kind == Kind.POSITION and row.runs >= PERSISTS_RUNS and row.state in (State.OPEN, State.PROPOSED):
            done.freeze.add(codes[row.account_id or 0])
    for key, row in known.items():
        if key in seen or key in in_flight or not _covers(window, row):
            continue
        if row.state == State.PROPOSED:
            done.withdrawn.append(row.id)
        row.closed_as = (row.resolution or {}).get("action", "gone") if row.state == State.RESOLVED else "gone"
        row.state, row.closed_at, row.closed_by = State.CLOSED, at, run
        touched.append(row)
        done.closed.append(row)
        done.entries.append(entry(row, "break.closed", codes, at=at))
    sql.insert(new)
    sql.update(touched, _FIELDS)
    return done


def _opened(broker_id: int, found: Found, run: Reconciliation | None, at: datetime) -> Break:
    return Break(
        id=uuid7(), kind=found.kind, broker_id=broker_id, account_id=found.account_id, instrument_id=found.instrument_id,
        currency=found.currency, subject=found.subject[:80], ours=found.ours, theirs=found.theirs, detail=dict(found.detail),
        cause=found.cause, proposal=dict(found.proposal) if found.proposal else None, opened_at=at, opened_by=run,
        seen_at=at, seen_by=run,
    )  # fmt: skip


def _seen_again(row: Break, found: Found, run: Reconciliation | None, at: datetime) -> bool:
    """Take in what this run saw of a break; tell whether it counts as open again."""
    same = (row.ours, row.theirs) == (found.ours, found.theirs)
    stands = row.state == State.RESOLVED and same and (row.resolution or {}).get("action") in STANDING_ACTIONS
    reopened = row.state == State.RESOLVED and not stands
    if reopened:
        row.state = State.OPEN
    if row.state != State.PROPOSED:  # what waits for a second person stays as it was shown
        row.ours, row.theirs = found.ours, found.theirs
        row.proposal = dict(found.proposal) if found.proposal else None
    row.detail, row.cause = dict(found.detail), found.cause
    row.runs = 1 if reopened else row.runs + (0 if stands else 1)
    row.seen_at, row.seen_by = at, run
    return reopened


def _covers(window: tuple[datetime, datetime] | None, row: Break) -> bool:
    told = row.detail.get("at")
    if window is None or not told:
        return True
    return window[0] <= datetime.fromisoformat(told).astimezone(UTC) <= window[1]


def entry(row: Break, kind: str, codes: Mapping[int, str], *, at: datetime) -> Entry:
    """Return the journal entry that tells a break, on the chain of its account if it has one."""
    body = json.dumps({"data": break_out(row, at=at)})
    code = codes.get(row.account_id or 0)
    if code is None:
        return Entry(SYSTEM_STREAM, kind, str(row.id), body)
    return Entry(account_stream(code), kind, str(row.id), body, "break")
