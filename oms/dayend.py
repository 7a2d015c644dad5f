"""The end of a day: a checklist in a fixed order, each step once, resumed where it stopped.

A step is a row: what is done stays done, what failed is tried again by the next run. Every step is safe to run twice by
itself, so that a crash between its doing and its row costs nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings

from brokers import queries as brokers
from brokers.adapters import capabilities_of
from oms.journal import checkpoints
from oms.journal import operations as journal
from oms.journal import queries as audit
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, DomainError, Invalid
from oms.management.commands.check_invariants import violations
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.models import Order
from orders.operations import lapse_held
from orders.operations.reconciling import reconcile
from orders.states import OPEN
from portfolio import settlement, valuing
from portfolio.models import Break, DailyValue, DayEndStep, Reconciliation, Statement

DAY_END_LOCK = 7309
SHOWN = 20
Told = dict[str, Any]
State = DayEndStep.State


class StepFailed(Exception):
    """A step found something wrong; the rest goes on, the day is not ended."""

    def __init__(self, told: Told) -> None:
        super().__init__()
        self.told = told


def _settle(day: date, actor: Actor, clock: Callable[[], datetime]) -> Told:
    return {"settled": settlement.settle(day, actor=actor, at=clock())}


def _snapshot(day: date, actor: Actor, clock: Callable[[], datetime]) -> Told:
    """Keep what accounts are worth; of a day that is over stands what was kept last while it was there."""
    at = clock()
    if day == at.date():
        valuing.snapshot(at=at)
    kept = DailyValue.objects.filter(day=day)
    return {"accounts": kept.count(), "not_known": kept.filter(equity=None).count()}


def _statements(day: date, actor: Actor, clock: Callable[[], datetime]) -> Told:
    """Look for the files of brokers that can be compared by nothing else."""
    wanted = [b.code for b in brokers.brokers().values() if b.enabled and capabilities_of(b.adapter, b.settings).hosted]
    there = set(_files_of(day))
    missing = sorted(set(wanted) - there)
    told: Told = {"imported": sorted(there), "missing": missing}
    if missing:
        raise StepFailed(told | {"do": "import_statement of each, then run this again"})
    return told


def _files_of(day: date) -> list[str]:
    begun = datetime.combine(day, time.min, UTC)
    rows = Statement.objects.filter(
        source=Statement.Source.FILE,
        state=Statement.State.STAGED,
        as_of__gte=begun,
        as_of__lt=begun + timedelta(days=1),
    )
    return list(rows.values_list("broker__code", flat=True).distinct())


def _reconcile(day: date, actor: Actor, clock: Callable[[], datetime]) -> Told:
    """Reconcile with every broker: by the day's files where there are any, else by asking, as long as the day is not old."""
    told: Told = {"runs": {}, "open_breaks": 0}
    wrong = False
    files = set(_files_of(day))
    for broker in brokers.brokers().values():
        if not broker.enabled:
            continue
        try:
            run = reconcile(broker.code, on=day if broker.code in files else None, actor=actor, clock=clock)
            told["runs"][broker.code] = run.failure or "done"
            wrong |= run.state == Reconciliation.State.FAILED
        except Conflict as error:
            told["runs"][broker.code] = error.code
            wrong |= error.code != "statements_only"
    told["open_breaks"] = Break.objects.filter(state__in=[Break.State.OPEN, Break.State.PROPOSED]).count()
    if wrong:
        raise StepFailed(told)
    return told


def _expiry(day: date, actor: Actor, clock: Callable[[], datetime]) -> Told:
    """Let lapse what nobody decided on, and look for orders that should have ended with the day."""
    at = clock()
    end = datetime.combine(day, time.min, UTC) + timedelta(days=1)
    lapsed = lapse_held(at=at)
    over = Order.objects.filter(status__in=sorted(OPEN), expire_at__lt=min(end, at)).order_by("id")
    late = [str(pk) for pk in over.values_list("id", flat=True)[:SHOWN]]
    if late:
        raise StepFailed({"lapsed": lapsed, "overdue": late, "do": "ask their brokers: reconcile"})
    return {"lapsed": lapsed, "overdue": []}


def _verify(day: date, actor: Actor, clock: Callable[[], datetime]) -> Told:
    broken = {name: rows[:SHOWN] for name, rows in violations().items() if rows}
    faults = list(audit.faults(checkpoints.anchors(Path(settings.CHECKPOINTS))))[:SHOWN]
    if broken or faults:
        raise StepFailed({"violations": broken, "audit": faults})
    return {"violations": {}, "audit": []}


STEPS: dict[str, Callable[[date, Actor, Callable[[], datetime]], Told]] = {
    "settle": _settle,
    "snapshot": _snapshot,
    "statements": _statements,
    "reconcile": _reconcile,
    "expiry": _expiry,
    "verify": _verify,
}
"""In this order; what a step needs stands before it."""


def end_day(
    day: date,
    *,
    again: bool = False,
    actor: Actor,
    clock: Callable[[], datetime],
    say: Callable[[str], None] | None = None,
) -> list[DayEndStep]:
    """Take every step of a day that is not done yet, or all of them `again`; return all steps as they stand.

    Raises `Invalid` for a day that has not come yet, `Conflict` while somebody else is at it.
    """
    if day > clock().date():
        raise Invalid("in_the_future", "A day ends when it is there.", field="date")
    with _alone() as mine:
        if not mine:
            raise Conflict("day_end_running", "A day is being ended just now.")
        done = {row.step: row for row in DayEndStep.objects.filter(day=day)}
        for name, step in STEPS.items():
            row = done.get(name)
            if row is None or row.state != State.DONE or again:
                row = done[name] = _take(day, name, step, row, actor=actor, clock=clock)
            if say:
                say(f"{name:10} {row.state:7} {json.dumps(row.detail)}")
        return [done[name] for name in STEPS]


def _take(
    day: date,
    name: str,
    step: Callable[[date, Actor, Callable[[], datetime]], Told],
    before: DayEndStep | None,
    *,
    actor: Actor,
    clock: Callable[[], datetime],
) -> DayEndStep:
    began, state = clock(), State.DONE
    try:
        told = step(day, actor, clock)
    except StepFailed as failed:
        told, state = failed.told, State.FAILED
    except DomainError as error:
        told, state = {"code": error.code, "detail": error.detail}, State.FAILED
    tries = before.tries + 1 if before else 1
    return _keep(day, name, state, told, tries, actor=actor, began=began, at=clock())


@in_transaction
def _keep(
    day: date, name: str, state: str, told: Told, tries: int, *, actor: Actor, began: datetime, at: datetime
) -> DayEndStep:
    row, _ = DayEndStep.objects.update_or_create(
        day=day,
        step=name,
        defaults={
            "state": state, "detail": told, "tries": tries, "done_by": actor.name, "began_at": began, "ended_at": at,
        },
    )  # fmt: skip
    body = json.dumps({"data": {"day": day.isoformat(), "step": name, "state": state, "detail": told}})
    journal.append([Entry(SYSTEM_STREAM, f"day_end.{state}", f"{day} {name}", body)], actor=actor, at=at)
    return row


@contextmanager
def _alone() -> Iterator[bool]:
    row = sql.run("SELECT pg_try_advisory_lock(%s, 0)", [DAY_END_LOCK]).fetchone()
    mine = bool(row and row[0])
    try:
        yield mine
    finally:
        if mine:
            sql.run("SELECT pg_advisory_unlock(%s, 0)", [DAY_END_LOCK])
