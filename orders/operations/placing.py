"""Placing orders: idempotency, risk, route, records, all in one transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog
from django.db import IntegrityError

from brokers import queries as brokers
from brokers.adapters import capabilities_of
from brokers.adapters.port import NewOrder
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.journal import operations as journal
from oms.journal.domain import account_stream
from oms.journal.models import Event
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import DomainError, Invalid, InvalidFields, Refused
from oms.kernel.ids import broker_client_id, uuid7
from oms.kernel.reasons import Reason
from oms.runtime import doorbell, rows, sql
from oms.runtime.http import correlation_id
from oms.runtime.transactions import after_commit, in_transaction
from orders.domain.algos import SEED_BELOW, TIMES_IN_FORCE, AlgoTerms, faults_of, settled
from orders.domain.groups import Kind, Role
from orders.domain.tickets import Ticket
from orders.domain.triggers import AUCTIONS, STOPS, TRAILING, WORKS_FOR, Watch
from orders.domain.waiting import valid_until
from orders.models import ChildOrder, IdempotencyKey, Order, Submission, Trigger
from orders.operations.holding import ask_release
from orders.operations.linking import Seat, Seats, exits_of, leg_of
from orders.operations.recording import note_groups, order_entry, remember
from orders.operations.sizing import Sized, size
from orders.operations.slicing import Work, begin, working_instructions
from orders.operations.watching import waits_until, watch_for
from orders.queries import Names, order_out, resting
from orders.states import BLOCK, OrdStatus
from portfolio import queries as portfolio
from portfolio.models import Account, Strategy
from portfolio.queries import Months
from risk import operations as risk
from risk.domain.intents import Intent
from risk.domain.scopes import Scope
from risk.domain.selftrade import Prevented
from risk.queries import halted_brokers
from routing import operations as routing
from routing.domain.candidates import RouteRequest
from routing.operations import Plan

BATCH_MAX = 1_000
CEILINGS = ("children_within_order", "messages_within_order")
"""Constraints by which the database compares what goes out with what came in."""
KEY_LENGTH_MAX = 128
KEY_RACES_MAX = 8
"""How often a batch may lose to others that use one of its keys at the same moment."""
PARTS = ("display_quantity", "min_quantity")
"""What a broker must be able to do with a part of the quantity."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A ticket, who asks, the key of the request if the client gave one, and what its log lines are known by."""

    ticket: Ticket
    actor: Actor
    key: str = ""
    origin: str = "desk"
    correlation: str = field(default_factory=correlation_id)


@dataclass(frozen=True, slots=True)
class Placed:
    """The answer to one request: the order as first answered, or the problem that made none."""

    order_id: UUID | None
    body: str
    created: bool
    problem: DomainError | None = None


@dataclass(slots=True)
class _Draft:
    """A request on its way through place: looked up, not yet decided."""

    index: int
    request: Request
    account: Account
    instrument: InstrumentRef
    directed: int | None
    strategy: int | None
    order_id: UUID
    client_order_id: str
    digest: bytes
    algo: AlgoTerms | None = None  # with every default in its place
    seat: Seat | None = None

    @property
    def waits(self) -> bool:
        """Tell whether it waits for another order's fills: nothing is asked about it before."""
        return self.seat is not None and self.seat.waits


def key_of(batch_key: str, index: int) -> str:
    """Return the key of one order of a batch that was sent under a key, so that a repeat of the batch makes none twice."""
    return f"{batch_key}#{index}" if batch_key else ""


def place(tickets: Sequence[Ticket | Request], *, actor: Actor, at: datetime) -> list[Placed]:
    """Record a batch of orders, ask risk, plan routes, and leave submissions to be sent.

    One transaction. Answers stand in the order of the tickets, each judged alone: a reused id with the same
    ticket answers with the first result, with another ticket it is that ticket's own refusal; what risk refuses
    is an order with status `denied`. Nobody waits for a broker.
    """
    requests = [t if isinstance(t, Request) else Request(t, actor) for t in tickets]
    for _ in range(KEY_RACES_MAX):
        try:
            return _place(requests, at=at)
        except IntegrityError as error:
            if any(ceiling in str(error) for ceiling in CEILINGS):
                _stop_what_overruns(requests, error, at=at)
            # Two requests of one user raced with one key on two accounts: the second try finds the first's order.
            if "idempotency_key_unique" not in str(error):
                raise
    raise Refused("idempotency_conflict", "The key was used by another request at the same moment.")


def _stop_what_overruns(requests: Sequence[Request], error: Exception, *, at: datetime) -> None:
    """Halt the accounts of a batch of which more would have gone out than came in: the desk itself is broken.

    Nothing of the batch stands. Raises `Refused` (beyond_order).
    """
    log.critical("beyond_order", error=str(error).partition("\n")[0])
    for code in sorted({r.ticket.account for r in requests}):
        reason = "More would have been sent than was asked for; the desk's code is at fault."
        risk.engage_halt(Scope("account", code), mode="halt", reason=reason, actor=Actor.system("ceiling"), at=at)
    raise Refused("beyond_order", "The desk would have sent more than was asked for; the account is halted.")


@in_transaction
def _place(requests: Sequence[Request], *, at: datetime) -> list[Placed]:
    return place_locked(requests, at=at)


def place_locked(requests: Sequence[Request], *, at: datetime) -> list[Placed]:
    """Place inside the caller's transaction; see `place`."""
    answers: dict[int, Placed] = {}
    with sql.pipeline():
        accounts = _lock_accounts(requests, at)
        drafts = _drafts(requests, accounts, answers)
        fresh = _sized(_choosing(_claim_ids(drafts, answers), answers, at), answers)
        fresh = _worked(fresh, answers, at)
        seats = Seats(at)
        fresh = _seated(fresh, seats, answers)
        held, met = _decide(fresh, seats, answers, at) if fresh else ([], [])
    ask_release(held, at=at)
    if met:
        from orders.operations.preventing import keep_apart  # noqa: PLC0415 - it ends orders, by modules that know this one

        keep_apart(met, at=at)
    return [answers[i] for i in range(len(requests))]


def _lock_accounts(requests: Sequence[Request], at: datetime) -> dict[tuple[str, int | None], Account]:
    """Lock the accounts named and return those that each user may trade, by (code, user id)."""
    codes = sorted({r.ticket.account for r in requests})
    found = list(rows.load(Account, "WHERE t.code = ANY(%s) ORDER BY t.id FOR NO KEY UPDATE", [codes]))
    users = sorted({r.actor.user_id for r in requests if r.actor.user_id is not None})
    grants = sql.run(
        "SELECT account_id, user_id FROM portfolio_accountgrant "
        "WHERE account_id = ANY(%s) AND user_id = ANY(%s) AND (expires_at IS NULL OR expires_at > %s)",
        [[a.id for a in found], users, at],
    ).fetchall()
    granted = set(grants)
    allowed: dict[tuple[str, int | None], Account] = {(a.code, None): a for a in found}
    allowed.update({(a.code, u): a for a in found for u in users if (a.id, u) in granted})
    return allowed


def _drafts(
    requests: Sequence[Request], accounts: dict[tuple[str, int | None], Account], answers: dict[int, Placed]
) -> list[_Draft]:
    symbols, codes = brokers.instruments_by_symbol(), brokers.brokers_by_code()
    labels = {r.ticket.strategy for r in requests} - {""}
    strategies = dict(Strategy.objects.filter(code__in=labels, active=True).values_list("code", "id")) if labels else {}
    drafts = []
    for index, request in enumerate(requests):
        ticket = request.ticket
        account = accounts.get((ticket.account, request.actor.user_id))
        instrument = symbols.get(ticket.symbol)
        faults = []
        if account is None:
            faults.append(Invalid("unknown_account", "No such account, or none you may trade.", field="account"))
        if instrument is None or not instrument.active:
            faults.append(Invalid("unknown_symbol", "No such instrument.", field="symbol"))
        if ticket.broker and ticket.broker not in codes:
            faults.append(Invalid("unknown_broker", "No such broker.", field="broker"))
        if ticket.strategy and ticket.strategy not in strategies:
            faults.append(Invalid("unknown_strategy", "No such strategy.", field="strategy"))
        if instrument is not None:
            faults += _grid_faults(ticket, instrument)
        if len(request.key) > KEY_LENGTH_MAX:
            faults.append(
                Invalid("too_long", f"A key has at most {KEY_LENGTH_MAX} characters.", field="Idempotency-Key")
            )
        if faults or account is None or instrument is None:
            answers[index] = Placed(None, "", False, InvalidFields(faults))
            continue
        order_id = uuid7()
        drafts.append(
            _Draft(
                index, request, account, instrument,
                codes[ticket.broker].id if ticket.broker else None,
                strategies.get(ticket.strategy), order_id, ticket.client_order_id or str(order_id), ticket.digest(),
            )
        )  # fmt: skip
    return drafts


def _grid_faults(ticket: Ticket, instrument: InstrumentRef) -> list[Invalid]:
    faults = []
    if not decimals.is_multiple(ticket.quantity, instrument.lot_size):
        lot = decimals.text(instrument.lot_size)
        faults.append(Invalid("off_lot", f"The quantity must be a multiple of {lot}.", field="quantity"))
    for name in PARTS:
        part = getattr(ticket, name)
        if part is not None and not decimals.is_multiple(part, instrument.lot_size):
            lot = decimals.text(instrument.lot_size)
            faults.append(Invalid("off_lot", f"The quantity must be a multiple of {lot}.", field=name))
    stop = ticket.stop_loss
    prices = {n: getattr(ticket, n) for n in ("limit_price", "stop_price", "trail_amount")} | {
        "take_profit.limit_price": ticket.take_profit,
        "stop_loss.stop_price": stop.stop_price if stop else None,
        "stop_loss.limit_price": stop.limit_price if stop else None,
    }
    for name, price in prices.items():
        if price is not None and not decimals.is_multiple(price, instrument.tick_size):
            tick = decimals.text(instrument.tick_size)
            faults.append(Invalid("off_tick", f"The price must be a multiple of {tick}.", field=name))
    return faults


def _claim_ids(drafts: list[_Draft], answers: dict[int, Placed]) -> list[_Draft]:
    """Answer replays and conflicts; return the drafts that are new, each id once."""
    known = _known_orders(drafts)
    fresh: list[_Draft] = []
    first: dict[Any, _Draft] = {}
    for draft in drafts:
        names = [("id", draft.account.id, draft.client_order_id)]
        if draft.request.key:
            names.append(("key", draft.request.actor.user_id or 0, draft.request.key))
        hits = [known[n] for n in names if n in known]
        twins = [first[n] for n in names if n in first]
        if hits:
            answers[draft.index] = _replay(
                draft,
                hits,
                found_by_all=len({h[0] for h in hits}) == 1 and _agrees(draft, hits, names, known),
            )
        elif twins:
            # Id and key, where both are given, must name the same order: as they must of one that was placed before.
            agree = len({id(t) for t in twins}) == 1 and all(n in first for n in _given(draft, names))
            same = agree and twins[0].digest == draft.digest
            # The first of the two is decided below; its answer is filled in after that.
            answers[draft.index] = Placed(twins[0].order_id, "", False, None if same else _conflict())
        else:
            fresh.append(draft)
            first.update(dict.fromkeys(names, draft))
    return fresh


def _sized(drafts: list[_Draft], answers: dict[int, Placed]) -> list[_Draft]:
    """Work out the quantities of drafts that name none, and return those that have one; the digest stays what was asked."""
    unsized = [d for d in drafts if d.request.ticket.size_by]
    if not unsized:
        return drafts
    refused: dict[UUID, DomainError] = {}
    wanted = [Sized(d.request.ticket, by, d.account, d.instrument) for d in unsized if (by := d.request.ticket.size_by)]
    for draft, found in zip(unsized, size(wanted), strict=True):
        if isinstance(found, DomainError):
            refused[draft.order_id] = found
            answers[draft.index] = Placed(None, "", False, found)
        else:
            draft.request = replace(draft.request, ticket=replace(draft.request.ticket, quantity=found))
    return _without(refused, drafts, answers)


def _choosing(drafts: list[_Draft], answers: dict[int, Placed], at: datetime) -> list[_Draft]:
    """Refuse drafts that choose lots which they can't close; return the others."""
    choosing = [d for d in drafts if d.request.ticket.lots]
    if not choosing:
        return drafts
    known = portfolio.lots_by_id({lot for d in choosing for lot in d.request.ticket.lots})
    pooled = portfolio.pooled_accounts({d.account.id for d in choosing}, at=at)
    refused: dict[UUID, DomainError] = {}
    for draft in choosing:
        if fault := _lots_fault(draft, known, pooled):
            refused[draft.order_id] = fault
            answers[draft.index] = Placed(None, "", False, fault)
    return _without(refused, drafts, answers)


def _worked(drafts: list[_Draft], answers: dict[int, Placed], at: datetime) -> list[_Draft]:
    """Settle the terms of what is to be worked in slices: asked for, or to show a part only where no broker does that itself.

    Return the drafts that stand; one whose times leave no room is refused.
    """
    slicing = [d for d in drafts if d.request.ticket.algo or d.request.ticket.display_quantity is not None]
    if not slicing:
        return drafts
    links = links_of({d.account.id for d in slicing})
    refused: dict[UUID, DomainError] = {}
    for draft in slicing:
        ticket = draft.request.ticket
        asked = ticket.algo or (None if _shown_by_a_broker(draft, links) else AlgoTerms("iceberg"))
        alone = ticket.group is None and ticket.min_quantity is None  # else a broker has to do it, or nobody
        if asked is None or ticket.time_in_force not in TIMES_IN_FORCE or not alone:
            continue
        closes_at = _ends_at(draft, max(asked.start_at or at, at))
        seed = draft.order_id.int % SEED_BELOW
        draft.algo = settled(asked, order_type=ticket.order_type, seed=seed, at=at, closes_at=closes_at)
        if faults := faults_of(draft.algo, closes_at=closes_at):
            refused[draft.order_id] = InvalidFields(faults)
            answers[draft.index] = Placed(None, "", False, refused[draft.order_id])
    return _without(refused, drafts, answers)


def _shown_by_a_broker(draft: _Draft, links: dict[int, dict[int, tuple[int, str]]]) -> bool:
    """Tell whether a broker that the order may go to shows a part of an order by itself."""
    known = brokers.brokers()
    ids = [draft.directed] if draft.directed else list(links[draft.account.id])
    return any(capabilities_of(known[i].adapter, known[i].settings).display_quantity for i in ids if i in known)


def _ends_at(draft: _Draft, begins: datetime) -> datetime | None:
    """Return when the order itself ends, if nothing ends it before."""
    ticket = draft.request.ticket
    closes_at = brokers.session_end(draft.instrument.id, begins)
    return valid_until("limit", ticket.time_in_force, ticket.expire_at, decided_at=begins, closes_at=closes_at)


def _seated(drafts: list[_Draft], seats: Seats, answers: dict[int, Placed]) -> list[_Draft]:
    """Give drafts that belong to a group their place in it, and refuse those that don't fit; return the others."""
    grouped = [d for d in drafts if d.request.ticket.group or d.request.ticket.has_exits]
    if not grouped:
        return drafts
    named = [(d.account.id, d.request.ticket.group.id) for d in grouped if d.request.ticket.group]
    if named:
        seats.load(named)
    refused: dict[UUID, DomainError] = {}
    for draft in grouped:
        try:
            draft.seat = seats.take(draft.request.ticket, draft.account.id, draft.instrument.id, draft.order_id)
            if draft.algo and draft.seat.role is not Role.PARENT:
                raise Invalid("not_allowed", "An order that follows others is not worked in slices.", field="algo")
        except DomainError as fault:
            refused[draft.order_id] = fault
            answers[draft.index] = Placed(None, "", False, fault)
    return _without(refused, drafts, answers)


def _lots_fault(draft: _Draft, known: dict[UUID, portfolio.HeldLot], pooled: set[int]) -> DomainError | None:
    ticket = draft.request.ticket
    if draft.account.id in pooled:
        return Invalid("no_lots_to_choose", "This account keeps one pool of each instrument.", field="lots")
    long = ticket.side != "buy"
    for lot in (known.get(i) for i in ticket.lots):
        own = lot is not None and (lot.account_id, lot.instrument_id) == (draft.account.id, draft.instrument.id)
        if lot is None or not own or (lot.remaining > 0) != long:
            return Invalid("unknown_lot", "Name open lots of the account that this order would close.", field="lots")
    return None


def _without(refused: dict[UUID, DomainError], drafts: list[_Draft], answers: dict[int, Placed]) -> list[_Draft]:
    """Return the drafts that were not refused, and give the twins of a refused one its answer."""
    for index, answer in answers.items():
        if answer.order_id in refused and not answer.problem:
            answers[index] = Placed(None, "", False, refused[answer.order_id])
    return [d for d in drafts if d.order_id not in refused]


def _agrees(draft: _Draft, hits: list[Any], names: list[Any], known: dict[Any, Any]) -> bool:
    """Tell whether id and key, where both were given, name the same order."""
    return all(n in known for n in _given(draft, names))


def _given(draft: _Draft, names: list[Any]) -> list[Any]:
    """Return the names that the client gave the order: its key, and its id unless we made that."""
    return [n for n in names if n[0] == "key" or draft.request.ticket.client_order_id]


def _known_orders(drafts: list[_Draft]) -> dict[Any, tuple[UUID, bytes, int, int]]:
    rows = sql.run(
        "SELECT o.account_id, o.client_order_id, o.id, o.body_hash, o.placed_sequence FROM orders_order o "
        "JOIN unnest(%s::bigint[], %s::varchar[]) u(account, client) ON o.account_id = u.account AND o.client_order_id = u.client",
        [[d.account.id for d in drafts], [d.client_order_id for d in drafts]],
    )
    known: dict[Any, tuple[UUID, bytes, int, int]] = {
        ("id", account, client): (pk, bytes(digest), sequence, account)
        for account, client, pk, digest, sequence in rows
    }
    keyed = [d for d in drafts if d.request.key]
    if keyed:
        found = sql.run(
            "SELECT k.user_id, k.key, o.id, o.body_hash, o.placed_sequence, o.account_id FROM orders_idempotencykey k "
            "JOIN orders_order o ON o.id = k.order_id "
            "JOIN unnest(%s::bigint[], %s::varchar[]) u(owner, key) ON k.user_id = u.owner AND k.key = u.key",
            [[d.request.actor.user_id or 0 for d in keyed], [d.request.key for d in keyed]],
        )
        known.update({("key", o, k): (pk, bytes(h), sequence, account) for o, k, pk, h, sequence, account in found})
    return known


def _conflict() -> Refused:
    return Refused("idempotency_conflict", "This id or key was used for another order; use a new one.")


def _replay(draft: _Draft, hits: list[tuple[UUID, bytes, int, int]], *, found_by_all: bool) -> Placed:
    order_id, digest, sequence, account_id = hits[0]
    if not found_by_all or digest != draft.digest or account_id != draft.account.id:
        return Placed(None, "", False, _conflict())
    body = Event.objects.values_list("body", flat=True).get(
        stream__name=account_stream(draft.account.code), sequence=sequence
    )
    return Placed(order_id, first_answer(body), False)


def first_answer(event_body: str) -> str:
    """Return the order's JSON out of the event that recorded it, to the byte."""
    start, end = len('{"data":'), event_body.rindex(',"transitions":')
    return event_body[start:end]


def _decide(
    drafts: list[_Draft], seats: Seats, answers: dict[int, Placed], at: datetime
) -> tuple[list[tuple[Order, Account, Actor]], list[tuple[Order, Prevented]]]:
    """Ask risk and routing, write the rows of all drafts, and answer them and their twins.

    Return the orders held for a second person, and those that would have met others of their account.
    """
    quotes = brokers.quotes({d.instrument.id for d in drafts})
    asked = [d for d in drafts if not d.waits]
    watched = _watched(asked, quotes, at)
    intents = [_intent(d, watched.get(d.order_id), at) for d in asked]
    verdicts = {v.order_id: v for v in risk.check(intents, at=at, resting=resting)}
    approved = [d for d in asked if verdicts[d.order_id].approved and d.order_id not in watched]
    links = links_of({d.account.id for d in approved})
    halted = halted_brokers()
    months = Months(at)
    wanted = [
        _route_request(d, links, halted.for_order(reduces=verdicts[d.order_id].reduces), months) for d in approved
    ]
    plans = plan_routes(wanted, {d.order_id for d in approved if d.seat and d.seat.oco}, at=at)
    unrouted = [p.order_id for p in plans.values() if not p.legs]
    if unrouted:
        risk.resize(dict.fromkeys(unrouted, decimals.ZERO))

    orders: list[Order] = []
    children: list[ChildOrder] = []
    submissions: list[Submission] = []
    triggers: list[Trigger] = []
    held: list[tuple[Order, Account, Actor]] = []
    met: list[tuple[Order, Prevented]] = []
    works: list[Work] = []
    exits: list[tuple[_Draft, Order]] = []
    for draft in drafts:
        order = _order(draft, quotes.get(draft.instrument.id), at)
        orders.append(order)
        if draft.waits:
            order.hold()
            continue
        verdict, plan = verdicts[draft.order_id], plans.get(draft.order_id)
        if verdict.prevented is not None:
            met.append((order, verdict.prevented))
        if verdict.held and verdict.prevented is not None:
            hold_apart(order, verdict.prevented, verdict.detail)
        elif verdict.held:
            order.hold()
            order.reason, order.reason_detail = verdict.reason, verdict.detail
            held.append((order, draft.account, draft.request.actor))
            if draft.algo:
                works.append(begin(order, draft.algo, stop_at=_ends_at(draft, at), at=at))
            if draft.order_id in watched:  # it stands by until somebody lets the order pass
                triggers.append(trigger_of(order, watched[draft.order_id], at))
        elif not verdict.approved:
            _deny(order, verdict.reason, verdict.detail)
        elif draft.order_id in watched:
            order.acknowledge()  # by the desk itself: no broker sees it before what it waits for has come
            triggers.append(trigger_of(order, watched[draft.order_id], at))
        elif plan is None or not plan.legs:
            _deny(order, Reason.NO_ROUTE, plan.detail if plan else "")
        elif draft.algo:
            order.acknowledge()  # by the desk itself, which gives brokers one slice after another
            works.append(begin(order, draft.algo, stop_at=_ends_at(draft, at), at=at))
        else:
            for broker_id, quantity in plan.legs:
                child, submission = new_child(order, broker_id, links[draft.account.id][broker_id], quantity, at)
                submission.reduces = verdict.reduces
                children.append(child)
                submissions.append(submission)
        if draft.request.ticket.has_exits and order.status == OrdStatus.DENIED:
            draft.seat = None  # nothing will follow it
            order.instructions = _instructions(draft)
        elif draft.request.ticket.has_exits:
            exits += _exits(draft, quotes.get(draft.instrument.id), at)
    _write(drafts, orders, exits, children, submissions, answers, at)
    sql.insert(triggers)
    sql.insert([w.algo for w in works])
    sql.insert([s for w in works for s in w.slices])
    _write_groups(seats, [*zip(drafts, orders, strict=True), *exits], at)
    return held, met


def _exits(draft: _Draft, quote: QuoteRef | None, at: datetime) -> list[tuple[_Draft, Order]]:
    """Return the exits of an entry, waiting for its fills."""
    assert draft.seat is not None  # noqa: S101 - whoever has exits has a group
    found = []
    for role, ticket in exits_of(draft.request.ticket):
        order_id = uuid7()
        leg = replace(
            draft, request=replace(draft.request, ticket=ticket, key=""), order_id=order_id, client_order_id=str(order_id),
            digest=ticket.digest(), seat=Seat(draft.seat.group, role, draft.order_id), algo=None,
        )  # fmt: skip
        order = _order(leg, quote, at)
        order.hold()
        found.append((leg, order))
    return found


def _write_groups(seats: Seats, placed: list[tuple[_Draft, Order]], at: datetime) -> None:
    """Store the places of orders in groups; a group that an order waits in is looked at once this stands."""
    seated = [(d.seat, o) for d, o in placed if d.seat is not None]
    if not seated:
        return
    sql.insert([g for g in seats.made if g.id in {s.group.id for s, _ in seated}])
    sql.insert([leg_of(o, s) for s, o in seated])
    note_groups([o.id for s, o in seated if s.waits and s.group.kind == Kind.OTO], at=at)


def _watched(drafts: list[_Draft], quotes: Mapping[int, QuoteRef], at: datetime) -> dict[UUID, Watch]:
    """Return what the desk itself has to wait for, by order: a start, an auction, or a price that no broker waits for."""
    special = [d for d in drafts if d.request.ticket.order_type not in ("market", "limit") or _has_a_start(d)]
    if not special:
        return {}
    links = links_of({d.account.id for d in special})
    found = {}
    for draft in special:
        watch = watch_for(draft.request.ticket, draft.instrument, quotes.get(draft.instrument.id), at)
        if watch is not None and (watch.starts_at or not _taken_by_a_broker(draft, links, at)):
            found[draft.order_id] = watch
    return found


def _has_a_start(draft: _Draft) -> bool:
    return draft.request.ticket.good_after is not None or draft.request.ticket.time_in_force in AUCTIONS


def _taken_by_a_broker(draft: _Draft, links: dict[int, dict[int, tuple[int, str]]], at: datetime) -> bool:
    """Tell whether a broker that the order may go to takes its type and time by itself."""
    ticket, known = draft.request.ticket, brokers.brokers()
    ids = [draft.directed] if draft.directed else list(links[draft.account.id])
    abilities = [capabilities_of(known[i].adapter, known[i].settings) for i in ids if i in known]
    hours = brokers.hours(draft.instrument.id)
    is_open = hours is None or hours.is_open(at)
    asset_class = draft.instrument.asset_class
    return any(a.takes(ticket.order_type, ticket.time_in_force, asset_class, is_open=is_open) for a in abilities)


def watches_for(orders: Sequence[Order], *, at: datetime) -> dict[UUID, Watch]:
    """Return what the desk itself has to wait for, by order, of orders that begin to work now."""
    accounts = Account.objects.in_bulk({o.account_id for o in orders})
    names, quotes = Names(), brokers.quotes({o.instrument_id for o in orders})
    drafts = [
        _Draft(
            0, Request(ticket_of(o, names, at), Actor.system("groups")), accounts[o.account_id],
            names.instruments[o.instrument_id], o.directed_broker_id, o.strategy_id, o.id, o.client_order_id, b"",
        )
        for o in orders
    ]  # fmt: skip
    return _watched(drafts, quotes, at)


def ticket_of(order: Order, names: Names, at: datetime) -> Ticket:
    """Return an order as a ticket would ask for it now."""
    amount, percent, begins = (order.instruction(n) for n in ("trail_amount", "trail_percent", "good_after"))
    starts = datetime.fromisoformat(begins) if begins else None
    return Ticket(
        names.accounts[order.account_id], names.instruments[order.instrument_id].symbol, order.side, order.quantity,
        order.order_type, limit_price=order.limit_price, stop_price=order.stop_price, time_in_force=order.time_in_force,
        expire_at=order.expire_at, good_after=starts if starts and starts > at else None,
        trail_amount=Decimal(amount) if amount else None, trail_percent=Decimal(percent) if percent else None,
    )  # fmt: skip


def trigger_of(order: Order, watch: Watch, at: datetime) -> Trigger:
    """Return the row that keeps what an order waits for at the desk."""
    return rows.make(
        Trigger,
        order_id=order.id,
        instrument_id=order.instrument_id,
        side=order.side,
        kind=watch.kind,
        price=watch.price,
        trail_amount=watch.trail_amount,
        trail_percent=watch.trail_percent,
        watermark=watch.watermark,
        limit_offset=watch.limit_offset,
        starts_at=watch.starts_at,
        valid_until=waits_until(order, watch.starts_at, at),
        seen_at=at,
    )


_EVENTS = {OrdStatus.DENIED: "order.denied", OrdStatus.HELD: "order.held"}


def _write(
    drafts: list[_Draft],
    orders: list[Order],
    exits: list[tuple[_Draft, Order]],
    children: list[ChildOrder],
    submissions: list[Submission],
    answers: dict[int, Placed],
    at: datetime,
) -> None:
    names = Names()
    entries = []
    by_actor: dict[Actor, list[tuple[_Draft, Order]]] = {}
    for draft, order in [*zip(drafts, orders, strict=True), *exits]:
        by_actor.setdefault(draft.request.actor, []).append((draft, order))
    bodies: dict[UUID, str] = {}
    for actor, pairs in by_actor.items():
        entries = [order_entry(o, names, _EVENTS.get(OrdStatus(o.status), "order.placed"), []) for _, o in pairs]
        for (_, order), event in zip(pairs, journal.append(entries, actor=actor, at=at), strict=True):
            order.placed_sequence = event.sequence
            bodies[order.id] = first_answer(event.body)
    sql.insert([*orders, *(order for _, order in exits)])
    sql.insert(children)
    sql.insert(submissions)
    keys = [
        IdempotencyKey(id=uuid7(), user_id=d.request.actor.user_id, key=d.request.key, order_id=d.order_id)
        for d in drafts
        if d.request.key and d.request.actor.user_id is not None
    ]
    sql.insert(keys)
    for draft in drafts:
        answers[draft.index] = Placed(draft.order_id, bodies[draft.order_id], True)
    for index, answer in list(answers.items()):
        if answer.order_id in bodies and not answer.body:
            answers[index] = replace(answer, body=bodies[answer.order_id])
    remember([*orders, *(order for _, order in exits)])
    codes = {names.brokers[s.broker_id].code for s in submissions}
    after_commit(lambda: doorbell.ring(codes))


def _intent(draft: _Draft, watch: Watch | None, at: datetime) -> Intent:
    ticket, actor = draft.request.ticket, draft.request.actor
    stop_price = ticket.stop_price
    if watch is not None:  # what is touched from the good side trades at the market; a trailing price is known by now
        stop_price = None if watch.kind == "touch" else watch.price
    return Intent(
        order_id=draft.order_id,
        account_id=draft.account.id,
        account_code=draft.account.code,
        base_currency=draft.account.base_currency,
        account_open=draft.account.status == Account.Status.OPEN,
        instrument=draft.instrument,
        side=ticket.side,
        quantity=ticket.quantity,
        order_type=ticket.order_type,
        limit_price=ticket.limit_price,
        stop_price=stop_price,
        user_id=actor.user_id,
        user_name=actor.name.partition(":")[2],
        strategy_id=draft.strategy,
        strategy_code=ticket.strategy,
        automated=actor.automated,
        directed_broker_code=ticket.broker or None,
        time_in_force=ticket.time_in_force,
        begins_later=bool(
            (watch and watch.starts_at) or (draft.algo and draft.algo.start_at and draft.algo.start_at > at)
        ),
        waits=watch is not None or draft.algo is not None,
        reduce_only=ticket.reduce_only,
        self_trade=ticket.self_trade_prevention,
        liquidates=draft.request.origin == "liquidation",
        covered=draft.request.origin == BLOCK,
        oco=draft.seat.oco if draft.seat else None,
    )


def links_of(account_ids: set[int]) -> dict[int, dict[int, tuple[int, str]]]:
    """Return by account and broker: the broker account's id and how the broker names it."""
    links: dict[int, dict[int, tuple[int, str]]] = {pk: {} for pk in account_ids}
    found = sql.run(
        "SELECT l.account_id, l.broker_id, b.id, b.external_id FROM portfolio_brokerlink l "
        "JOIN brokers_brokeraccount b ON b.id = l.broker_account_id WHERE l.account_id = ANY(%s)",
        [sorted(account_ids)],
    )
    for account_id, broker_id, pk, external_id in found:
        links[account_id][broker_id] = (pk, external_id)
    return links


def _route_request(
    draft: _Draft, links: dict[int, dict[int, tuple[int, str]]], halted: frozenset[str], months: Months
) -> RouteRequest:
    ticket = draft.request.ticket
    return RouteRequest(
        order_id=draft.order_id,
        instrument=draft.instrument,
        side=ticket.side,
        quantity=ticket.quantity,
        order_type=ticket.order_type,
        time_in_force=ticket.time_in_force,
        limit_price=ticket.limit_price,
        brokers=tuple(links[draft.account.id]),
        instructions=frozenset(n for n in PARTS if getattr(ticket, n) is not None)
        if draft.algo is None
        else frozenset(),
        directed=draft.directed,
        may_split=_may_split(draft),
        halted=halted,
        month=months.of(draft.account.id, draft.instrument.asset_class),
    )


def plan_routes(requests: Sequence[RouteRequest], in_sets: Collection[UUID], *, at: datetime) -> dict[UUID, Plan]:
    """Plan where orders go. Those of a set in which one cancels the others go to a broker that sees to that by itself, if one
    can take them: what the desk does instead is as right, but later."""
    narrowed = [_at_brokers_that_link(r) if r.order_id in in_sets else r for r in requests]
    plans = {p.order_id: p for p in routing.plan(narrowed, at=at)}
    others = [
        replace(r, may_split=False)
        for r, n in zip(requests, narrowed, strict=True)
        if n.brokers != r.brokers and not plans[r.order_id].legs
    ]
    return plans | {p.order_id: p for p in routing.plan(others, at=at)}


def _at_brokers_that_link(request: RouteRequest) -> RouteRequest:
    known = brokers.brokers()
    able = tuple(
        i for i in request.brokers
        if (abilities := capabilities_of(known[i].adapter, known[i].settings)).oco
        and abilities.takes(request.order_type, request.time_in_force, request.instrument.asset_class)
    )  # fmt: skip
    whole = replace(request, may_split=False)  # one broker must see all of the set
    return whole if not able or request.directed else replace(whole, brokers=able)


def _may_split(draft: _Draft) -> bool:
    """Tell whether several brokers may take parts of an order: one that rests nowhere, so that nobody will want to replace it."""
    ticket = draft.request.ticket
    whole = draft.algo is not None or any(getattr(ticket, n) is not None for n in PARTS)
    return ticket.order_type == "market" and ticket.time_in_force in ("day", "ioc") and not whole


def _order(draft: _Draft, quote: QuoteRef | None, at: datetime) -> Order:
    ticket = draft.request.ticket
    return rows.make(
        Order,
        id=draft.order_id,
        account_id=draft.account.id,
        client_order_id=draft.client_order_id,
        body_hash=draft.digest,
        instrument_id=draft.instrument.id,
        side=ticket.side,
        quantity=ticket.quantity,
        leaves_quantity=ticket.quantity,
        order_type=ticket.order_type,
        limit_price=ticket.limit_price,
        stop_price=ticket.stop_price,
        time_in_force=ticket.time_in_force,
        expire_at=ticket.expire_at,
        directed_broker_id=draft.directed,
        strategy_id=draft.strategy,
        note=ticket.note,
        size_by=ticket.size_by.as_json() if ticket.size_by else None,
        lots=[str(i) for i in ticket.lots] or None,
        instructions=_instructions(draft),
        parent_id=draft.seat.parent if draft.seat else None,
        origin=draft.request.origin,
        correlation_id=draft.request.correlation,
        created_by_id=draft.request.actor.user_id,
        created_at=at,
        updated_at=at,
        decided_at=at,
        arrival_bid=quote.bid if quote else None,
        arrival_ask=quote.ask if quote else None,
        arrival_at=quote.at if quote else None,
    )


def hold_apart(order: Order, found: Prevented, detail: str) -> None:
    """Hold an order with what is left of it, until others of its account are gone that it would trade with."""
    if found.quantity < order.quantity:
        detail = f"{detail} Reduced from {decimals.text(order.quantity)}."
        order.quantity = order.leaves_quantity = found.quantity
    order.hold()
    order.reason, order.reason_detail = Reason.SELF_TRADE, detail[:200]


def _instructions(draft: _Draft) -> dict[str, Any] | None:
    ticket = draft.request.ticket
    told = working_instructions(ticket, draft.algo) if draft.algo else ticket.instructions()
    return told if draft.seat is None else {**(told or {}), "group": draft.seat.told()}


def _deny(order: Order, reason: str, detail: str) -> None:
    order.deny()
    order.leaves_quantity = decimals.ZERO
    order.reason, order.reason_detail = str(reason), detail[:200]


def new_child(
    order: Order,
    broker_id: int,
    broker_account: tuple[int, str],
    quantity: Any,
    at: datetime,
    *,
    decided_at: datetime | None = None,
) -> tuple[ChildOrder, Submission]:
    """Return a broker order for a part of an order, with the submission that will ask for it.

    `decided_at`: since when it is good, if not since the order was decided on or triggered. A slice of a worked order is as
    new as the moment it is made; what it shows is all that it is.
    """
    since = decided_at or (at if order.algo else order.triggered_at or order.decided_at)
    submission_id = uuid7()
    stop_price = order.stop_price if order.working_type in STOPS else None
    time_in_force = WORKS_FOR.get(order.time_in_force, order.time_in_force)
    client_order_id = broker_client_id(submission_id)
    child = rows.make(
        ChildOrder,
        id=uuid7(),
        order_id=order.id,
        broker_id=broker_id,
        broker_account_id=broker_account[0],
        client_order_id=client_order_id,
        quantity=quantity,
        leaves_quantity=quantity,
        limit_price=order.limit_price,
        stop_price=stop_price,
        time_in_force=time_in_force,
        expire_at=order.expire_at,
        created_at=at,
        updated_at=at,
    )
    message = NewOrder(
        client_order_id=client_order_id,
        account=broker_account[1],
        symbol=brokers.listings()[(broker_id, order.instrument_id)].symbol,
        side=order.side,
        quantity=quantity,
        order_type=order.working_type,
        time_in_force=time_in_force,
        limit_price=order.limit_price,
        stop_price=stop_price,
        expire_at=order.expire_at,
        display_quantity=part_of(order, "display_quantity", quantity),
        min_quantity=part_of(order, "min_quantity", quantity),
        trail_amount=_trail(order, "trail_amount"),
        trail_percent=_trail(order, "trail_percent"),
        link=_link(order, broker_id),
    )
    submission = rows.make(
        Submission,
        id=submission_id,
        child_id=child.id,
        broker_id=broker_id,
        account_id=order.account_id,
        kind=Submission.Kind.NEW,
        client_order_id=client_order_id,
        message=json.dumps(message),
        correlation_id=order.correlation_id,
        created_at=at,
        due_at=at,
        judged_at=at,
        valid_until=valid_until(
            order.working_type, time_in_force, order.expire_at, decided_at=since,
            closes_at=brokers.session_end(order.instrument_id, since),
        ),
    )  # fmt: skip
    return child, submission


def _link(order: Order, broker_id: int) -> str | None:
    """Return what a broker shall know the set by in which one cancels the others, if it sees to that."""
    broker = brokers.brokers()[broker_id]
    if not order.cancels_others or not capabilities_of(broker.adapter, broker.settings).oco:
        return None
    return sha256(f"{order.account_id}:{order.group_told['id']}".encode()).hexdigest()[:24]


def part_of(order: Order, name: str, quantity: Decimal) -> Decimal | None:
    """Return a part of the quantity that a broker is asked for, of no more than it gets."""
    told = None if order.algo else order.instruction(name)
    return None if told is None else min(Decimal(told), quantity)


def _trail(order: Order, name: str) -> Decimal | None:
    """Return the distance that a broker is to trail at, if it does the trailing."""
    told = order.instruction(name) if order.working_type in TRAILING else None
    return None if told is None else Decimal(told)


__all__ = [
    "BATCH_MAX",
    "Placed",
    "Request",
    "first_answer",
    "hold_apart",
    "key_of",
    "new_child",
    "order_out",
    "part_of",
    "place",
    "place_locked",
]
