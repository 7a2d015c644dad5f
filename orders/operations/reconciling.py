"""Reconciliation: ask a broker, or read its statement, compare, adopt what we missed, and keep what differs as breaks.

What a broker answers is believed only where it makes sense: an empty, a shrunken or a stale answer fails the run and changes
nothing, unless a person takes it on. Fills of orders that we know are adopted as the reports that they are; everything
else waits as a break for a person to propose, and another to approve, what is to be done.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar

import structlog

from brokers import queries as brokers
from brokers.adapters import adapter_for
from brokers.adapters.port import BrokerAdapter, BrokerUnavailable, OrderState, Report
from brokers.domain.reference import BrokerRef
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.batching import chunks
from oms.kernel.decimals import text
from oms.kernel.errors import Conflict, Forbidden
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.operations.comparing import Fills, Working, compare_fills, compare_orders, unknown_here, working_here
from orders.operations.reporting import REPORTS_MAX, apply
from portfolio import reconciling as books
from portfolio.breaks import reconciliation_out
from portfolio.domain.breaks import DIFFERENCES_MAX, FILLS, Tolerances, distrust, tolerances_of
from portfolio.domain.profiles import CASH, FILL, ORDER, POSITION, SECTIONS, TRADE_DATE
from portfolio.domain.statements import Line
from portfolio.models import Reconciliation, Statement
from portfolio.reconciling import KINDS, Compared
from portfolio.statements import known_at, profile_named, require_broker, stage
from risk import operations as risk

T = TypeVar("T")
RECONCILE_LOCK = 7306
FILLS_BACK = timedelta(days=3)
"""How far back a broker is asked for fills: brokers revise what they told for days."""
OVERLAP = timedelta(minutes=10)
SNAPSHOTS_KEPT = 20
"""Answers of a broker whose lines stay; older ones keep their counts alone."""
FAILURES = {
    "unavailable": "The broker can't be asked now.",
    "answer_empty": "The broker says that there is nothing where we know of something.",
    "answer_shrunken": "The broker leaves out more than half of what we know of.",
    "answer_stale": "The broker answers as things stood before our last fills, which it told us itself.",
    "too_many_differences": f"More than {DIFFERENCES_MAX} things differ: another account's, another day's, another format's?",
}
"""Why a run believes nothing, with its sentence."""
OVERRIDABLE = ("answer_empty", "answer_shrunken", "answer_stale")
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Said:
    """What a broker says, staged: the statement of each section, and what came with it where it was asked."""

    statements: dict[str, Statement]
    source: str
    basis: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, list[int] | None] = field(default_factory=dict)
    adopted: int = 0

    @property
    def as_of(self) -> datetime:
        return max(s.as_of for s in self.statements.values())


class _Failed(Exception):
    """The run believes nothing; see `FAILURES`."""

    def __init__(self, code: str, detail: str = "", sections: dict[str, Any] | None = None) -> None:
        super().__init__(code)
        self.code, self.detail, self.sections = code, detail or FAILURES[code], sections or {}


def reconcile(
    code: str,
    *,
    on: date | None = None,
    override: str = "",
    actor: Actor,
    clock: Callable[[], datetime],
) -> Reconciliation:
    """Reconcile with a broker: by the files that speak of a day, else, for today, by what it answers now.

    `override` is a person's reason to believe an answer that shrank. Returns the run, done or failed. Raises `Invalid` for an
    unknown broker, `Conflict` while another run is under way or where no statement speaks of the day.
    """
    broker, began = require_broker(code), clock()
    if override and actor.user_id is None:
        raise Forbidden("not_a_person", "A shrunken answer is believed by a named user of the desk.")
    with _alone(broker.id) as mine:
        if not mine:
            raise Conflict("reconciling", "This broker is being reconciled just now; look at that run.")
        run = Reconciliation(
            id=uuid7(), broker_id=broker.id, source=Statement.Source.ADAPTER, as_of=began, state=Reconciliation.State.DONE,
            created_by=actor.name, began_at=began, overridden_by=actor.name if override else "",
            override_reason=override[:150],
        )  # fmt: skip
        try:
            said = _files(broker, on) if on else None
            if said is None:
                if on is not None and on != began.date():
                    raise Conflict("no_statement", f"No statement of {code} speaks of {on}; import one first.")
                said = _ask(broker, actor=actor, clock=clock)
            return _compare(run, broker, said, actor=actor, clock=clock, override=bool(override))
        except _Failed as failure:
            run.state, run.failure, run.detail = Reconciliation.State.FAILED, failure.code, failure.detail[:300]
            run.sections, run.ended_at = failure.sections, clock()
            log.error("reconciliation_failed", broker=code, failure=failure.code, detail=failure.detail)
            _store_failed(run, actor=actor, at=run.ended_at)
            return run


def reconcile_all(*, actor: Actor, clock: Callable[[], datetime]) -> list[Reconciliation]:
    """Reconcile with every broker that is switched on and can be asked; one under way elsewhere is left to whoever does it."""
    done = []
    for broker in brokers.brokers().values():
        if broker.enabled:
            try:
                done.append(reconcile(broker.code, actor=actor, clock=clock))
            except Conflict as error:
                log.info("not_reconciled", broker=broker.code, why=error.code)
    return done


@contextmanager
def _alone(broker_id: int) -> Iterator[bool]:
    row = sql.run("SELECT pg_try_advisory_lock(%s, %s)", [RECONCILE_LOCK, broker_id]).fetchone()
    mine = bool(row and row[0])
    try:
        yield mine
    finally:
        if mine:
            sql.run("SELECT pg_advisory_unlock(%s, %s)", [RECONCILE_LOCK, broker_id])


# ---------------------------------------------------------------- what they say


def _files(broker: BrokerRef, on: date) -> _Said | None:
    """Return the newest file of each section that speaks of a day, None where there is none."""
    day = datetime.combine(on, time.min, UTC)
    rows = Statement.objects.filter(
        broker_id=broker.id, source=Statement.Source.FILE, state=Statement.State.STAGED, as_of__gte=day,
        as_of__lt=day + timedelta(days=1, microseconds=1),
    ).order_by("as_of", "id")  # fmt: skip
    said = _Said({}, Statement.Source.FILE)
    for row in rows:
        for section in row.lines:
            said.statements[section] = row
            said.basis[section] = profile_named(row.profile).basis
            said.accounts[section] = _accounts_in(row)
    return said if said.statements else None


def _accounts_in(statement: Statement) -> list[int]:
    """Return the accounts that a file speaks of anywhere: of others it says nothing, not that they are empty."""
    found = sql.run(
        "SELECT DISTINCT account_id FROM portfolio_statementline WHERE statement_id = %s ORDER BY 1", [statement.id]
    )
    return [a for (a,) in found]


def _ask(broker: BrokerRef, *, actor: Actor, clock: Callable[[], datetime]) -> _Said:
    """Ask a broker for everything, adopt the fills that we missed of orders that we know, and stage what it said."""
    since = _asked_since(broker.id, clock())
    try:
        adapter = adapter_for(broker.id, broker.adapter, broker.settings)
        if adapter.capabilities.hosted:
            raise Conflict("statements_only", f"{broker.code} answers only its gateway; import its statement first.")
        fills = _answer(lambda: adapter.executions_since(since))
        orders = _answer(adapter.open_orders)
        positions, cash, as_of = _answer(adapter.positions), _answer(adapter.cash), clock()
        told = {FILL: fills, ORDER: orders, POSITION: positions, CASH: cash}
        if all(t is None for t in told.values()):
            raise Conflict("statements_only", f"{broker.code} can't be asked; import its statement first.")
        new = unknown_here(broker.id, fills or [])
        adopted = sum(apply(broker.id, batch, actor=actor, at=as_of) for batch in chunks(new, REPORTS_MAX))
        found: list[OrderState] = []
        if orders is not None:
            found_fills, found = _look_up_lost(broker, adapter, orders, since, actor=actor, at=as_of)
            adopted += found_fills
    except BrokerUnavailable as error:
        raise _Failed("unavailable", str(error)) from error
    except (ValueError, KeyError) as error:
        raise _Failed("unavailable", f"The broker's adapter can't be made: {error}") from error
    lines = list(said_lines(broker.id, fills or [], [*(orders or []), *found], positions or [], cash or []))
    name = f"answers of {broker.code}"
    statement = stage(broker.id, lines, name=name, since=since, as_of=as_of, actor=actor, at=as_of)
    sections = [section for section in SECTIONS if told[section] is not None]
    said = _Said(dict.fromkeys(sections, statement), Statement.Source.ADAPTER, adopted=adopted)
    said.basis = dict.fromkeys(SECTIONS, TRADE_DATE)
    return said


def _answer(ask: Callable[[], T]) -> T | None:
    """Return what a broker answers, None where it has no such question at all."""
    try:
        return ask()
    except BrokerUnavailable as error:
        if error.permanent and not error.sent:
            return None
        raise


def _asked_since(broker_id: int, at: datetime) -> datetime:
    """Return from when on fills are asked for: some days back, further where nothing was reconciled since."""
    last = Reconciliation.objects.filter(
        broker_id=broker_id, source=Statement.Source.ADAPTER, state=Reconciliation.State.DONE
    ).order_by("-id").first()  # fmt: skip
    return min(at - FILLS_BACK, last.as_of - OVERLAP) if last else at - FILLS_BACK


def _look_up_lost(
    broker: BrokerRef,
    adapter: BrokerAdapter,
    orders: Sequence[OrderState],
    since: datetime,
    *,
    actor: Actor,
    at: datetime,
) -> tuple[int, list[OrderState]]:
    """Ask about what works here and is not in the broker's list; apply what it tells of those that stand otherwise.

    Returns the fills that were new, and the orders that it knows after all.
    """
    named = {o.client_order_id for o in orders} | {o.broker_order_id for o in orders}
    lost = {
        w.client_order_id: w
        for w in working_here(broker.id)
        if not w.undecided and w.client_order_id and not {w.client_order_id, w.broker_order_id} & named
    }
    adopted, found = 0, []
    for batch in chunks(list(lost), max(1, adapter.capabilities.batch_max)):
        answers = adapter.look_up(batch, since=since)
        found += [a.found for a in answers if a.found is not None and a.found.leaves_quantity > 0]
        differing = [a for a in answers if a.found and a.found.leaves_quantity != lost[a.client_order_id].leaves]
        for part in chunks([r for a in differing for r in a.reports], REPORTS_MAX):
            adopted += apply(broker.id, part, actor=actor, at=at)
    return adopted, found


def said_lines(
    broker_id: int,
    fills: Sequence[Report],
    orders: Sequence[OrderState],
    positions: Sequence[tuple[str, str, Any]],
    cash: Sequence[tuple[str, str, Any]],
) -> Iterator[Line]:
    """Return a broker's answers as lines; what it keeps for others than us is none of ours."""
    known, number = known_at(broker_id), 0
    for account, symbol, quantity in positions:
        if quantity and account in known.accounts:
            number += 1
            instrument, currency = known.symbols.get(symbol, (None, ""))
            yield Line(
                number,
                POSITION,
                known.accounts[account],
                instrument,
                symbol[:64],
                quantity=text(quantity),
                currency=currency,
            )
    for account, currency, amount in cash:
        if account in known.accounts:
            number += 1
            yield Line(
                number, CASH, known.accounts[account], None, currency[:12], amount=text(amount), currency=currency[:12]
            )
    for report in fills:
        if report.account in known.accounts and report.execution_id:
            number += 1
            yield _fill_line(
                number, report, known.accounts[report.account], known.symbols.get(report.symbol, (None, ""))
            )
    for order in orders:
        if order.account in known.accounts:
            number += 1
            instrument, currency = known.symbols.get(order.symbol, (None, ""))
            yield Line(
                number, ORDER, known.accounts[order.account], instrument, order.symbol[:64], reference=order.broker_order_id[:64],
                order_reference=order.client_order_id[:64], action=order.status[:16], side=order.side,
                quantity=text(order.leaves_quantity), price=text(order.limit_price) if order.limit_price else None,
                currency=currency,
            )  # fmt: skip


def _fill_line(number: int, report: Report, account_id: int, instrument: tuple[int | None, str]) -> Line:
    fees = None
    if report.fees is not None and all(f.currency == instrument[1] for f in report.fees):
        fees = text(sum((f.amount for f in report.fees), start=type(report.order_quantity)(0)))
    at = report.executed_at or datetime.now(UTC)
    return Line(
        number, FILL, account_id, instrument[0], report.symbol[:64], reference=(report.execution_id or "")[:64],
        order_reference=report.client_order_id[:64], action=str(report.kind), undoes=(report.ref_execution_id or "")[:64],
        side=report.side, quantity=text(report.last_quantity) if report.last_quantity is not None else None,
        price=text(report.last_price) if report.last_price is not None else None, fees=fees, currency=instrument[1],
        at=at.astimezone(UTC).isoformat(),
    )  # fmt: skip


# ---------------------------------------------------------------- the comparison


@in_transaction
def _compare(
    run: Reconciliation,
    broker: BrokerRef,
    said: _Said,
    *,
    actor: Actor,
    clock: Callable[[], datetime],
    override: bool,
) -> Reconciliation:
    """Compare section by section and fold what differs into the breaks, in one transaction."""
    tolerances = tolerances_of(broker.settings)
    compared = _sections(broker.id, said, tolerances)
    run.source, run.as_of = said.source, said.as_of
    run.opened = run.standing = run.closed = 0
    run.sections = {name: done.told(said.statements[name]) for name, done in compared.items()}
    _require_facts(said, compared, run.sections, override=override)
    at = clock()
    run.adopted, run.in_flight = said.adopted, sum(len(c.in_flight) for c in compared.values())
    run.ended_at = at
    run.save(force_insert=True)
    entries, frozen = _fold(run, broker.id, said, compared, at)
    entries += risk.freeze(
        sorted(frozen), reason=f"positions differ from {broker.code}'s run after run", actor=actor, at=at
    )
    run.ended_at = clock()
    run.save(update_fields=["sections", "opened", "standing", "closed", "ended_at"])
    entries.append(_entry("reconciliation.done", run))
    _prune(broker.id)
    journal.append(entries, actor=actor, at=at)
    return run


def _sections(broker_id: int, said: _Said, tolerances: Tolerances) -> dict[str, Compared]:
    """Compare each section that was told; fills first, as what differs there explains the rest."""
    done: dict[str, Compared] = {}
    fills = Fills()
    if statement := said.statements.get(FILL):
        fills = compare_fills(broker_id, statement, tolerances=tolerances, accounts=said.accounts.get(FILL))
        done[FILL] = fills
    busy, busy_cash, working = _busy(broker_id, said, tolerances)
    if statement := said.statements.get(POSITION):
        done[POSITION] = books.compare_positions(
            broker_id, statement, basis=said.basis[POSITION], tolerances=tolerances, fills=fills.quantities, busy=busy,
            accounts=said.accounts.get(POSITION),
        )  # fmt: skip
    if statement := said.statements.get(CASH):
        done[CASH] = books.compare_cash(
            broker_id, statement, basis=said.basis[CASH], tolerances=tolerances, fills=fills.cash, busy=busy_cash,
            accounts=said.accounts.get(CASH),
        )  # fmt: skip
    if statement := said.statements.get(ORDER):
        accounts = said.accounts.get(ORDER)
        mine = [w for w in working if accounts is None or w.account_id in accounts]
        done[ORDER] = compare_orders(statement, mine, tolerances=tolerances, broker_id=broker_id)
    return done


def _busy(
    broker_id: int, said: _Said, tolerances: Tolerances
) -> tuple[set[tuple[int, int]], set[tuple[int, str]], list[Working]]:
    """Return the holdings and the cash that move while the broker answers, and what works there.

    A file is of another time than now: what moves now is not in it.
    """
    working = working_here(broker_id) if ORDER in said.statements or said.source == Statement.Source.ADAPTER else []
    if said.source == Statement.Source.FILE:
        return set(), set(), working
    keys, cash = books.moving(broker_id, since=said.as_of - timedelta(seconds=float(tolerances.grace_seconds)))
    instruments = brokers.instruments()
    unsure = [w for w in working if w.undecided]
    keys |= {(w.account_id, w.instrument_id) for w in unsure}
    cash |= {(w.account_id, instruments[w.instrument_id].currency) for w in unsure}
    return keys, cash, working


def _require_facts(said: _Said, compared: dict[str, Compared], sections: dict[str, Any], *, override: bool) -> None:
    """Raise `_Failed` for answers that are no facts; a person may believe what shrank."""
    for name, done in compared.items():
        if done.too_many:
            raise _Failed("too_many_differences", sections=sections)
        why = distrust(done.ours, done.theirs, done.missing)
        if why and not override:
            detail = f"{FAILURES[why]} {name}: {done.theirs} of theirs, {done.ours} of ours, {done.missing} left out."
            raise _Failed(why, detail, sections)
    if said.source == Statement.Source.ADAPTER and not override and (why := _stale(compared)):
        raise _Failed("answer_stale", f"{FAILURES['answer_stale']} {why}", sections)


def _stale(compared: dict[str, Compared]) -> str:
    """Return how an answer shows that it is old: our last fills, and only they, are missing from all of it."""
    fills, positions = compared.get(FILL), compared.get(POSITION)
    if not isinstance(fills, Fills) or not fills.unknown or positions is None:
        return ""
    tail = fills.newest_theirs is None or min(f.at for f in fills.unknown) > fills.newest_theirs
    if tail and all(f.cause == FILLS for f in positions.found):
        return f"{len(fills.unknown)} fills since then are in none of its answers."
    return ""


def _fold(
    run: Reconciliation, broker_id: int, said: _Said, compared: dict[str, Compared], at: datetime
) -> tuple[list[Entry], set[str]]:
    """Fold each section into the breaks; an older statement than one compared before tells nothing of now."""
    entries: list[Entry] = []
    frozen: set[str] = set()
    for name, done in compared.items():
        statement = said.statements[name]
        if name != FILL and _overtaken(broker_id, name, statement, run):
            run.sections[name]["overtaken"] = True
            continue
        window = (statement.since, statement.as_of) if name == FILL else None
        folded = books.fold(broker_id, KINDS[name], done.found, run=run, in_flight=done.in_flight, window=window, at=at)
        risk.withdraw(folded.withdrawn)
        run.opened += len(folded.opened)
        run.standing += len(folded.standing)
        run.closed += len(folded.closed)
        entries += folded.entries
        frozen |= folded.freeze
    return entries, frozen


def _overtaken(broker_id: int, section: str, statement: Statement, run: Reconciliation) -> bool:
    return (
        Reconciliation.objects.filter(
            broker_id=broker_id, state=Reconciliation.State.DONE, as_of__gt=statement.as_of, sections__has_key=section
        )
        .exclude(pk=run.pk)
        .exists()
    )


@in_transaction
def _store_failed(run: Reconciliation, *, actor: Actor, at: datetime) -> None:
    run.save(force_insert=True)
    journal.append([_entry("reconciliation.failed", run)], actor=actor, at=at)


def _entry(kind: str, run: Reconciliation) -> Entry:
    return Entry(SYSTEM_STREAM, kind, str(run.pk), json.dumps({"data": reconciliation_out(run)}))


def _prune(broker_id: int) -> None:
    """Drop the lines of old answers; files keep theirs."""
    sql.run(
        "DELETE FROM portfolio_statementline WHERE statement_id IN (SELECT id FROM portfolio_statement "
        "WHERE broker_id = %s AND source = 'adapter' ORDER BY id DESC OFFSET %s LIMIT 10)",
        [broker_id, SNAPSHOTS_KEPT],
    )


__all__ = ["FAILURES", "OVERRIDABLE", "reconcile", "reconcile_all"]
