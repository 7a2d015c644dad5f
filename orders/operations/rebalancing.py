"""Rebalances, from the proposal to the last fill: approve, execute as a basket, follow, cancel, and go on after a crash.

`portfolio.proposing` works out what to trade and keeps how far it is; here it becomes orders. Every step is worked out from
the rows as they stand, and an order bears the number of its line (`reb-<rebalance>-<line>`), so that whoever takes the next
step, however often, places nothing twice. The pricer takes one each second.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from brokers import queries as brokers
from oms.kernel.actor import Actor
from oms.kernel.batching import chunks
from oms.kernel.decimals import ZERO
from oms.kernel.errors import Conflict, Forbidden
from oms.runtime.transactions import each, in_transaction
from orders.domain.tickets import LOTS_MAX, Ticket
from orders.models import Order
from orders.operations.changing import CANCELS_MAX, cancel_batch
from orders.operations.placing import BATCH_MAX, Request, place_locked
from orders.states import CLOSED
from portfolio import proposing
from portfolio.domain.options import parse_options
from portfolio.domain.rebalancing import BANDS, CALENDAR, brought_down
from portfolio.domain.targets import parse_targets
from portfolio.models import Account, AccountGrant, Rebalance, RebalanceLine, RebalanceRule
from portfolio.proposing import ENDED, Status, Wish
from risk import operations as risk
from risk.domain.gate import Gate
from risk.domain.intents import Intent
from risk.models import Approval
from risk.queries import find_approval, load_facts, restricted_instruments

ORIGIN = "rebalance"
FRESH = timedelta(hours=24)
"""How long a proposal may be executed after it was made: prices move on."""
OUTCOME_MAX = 200


def propose(wish: Wish, *, actor: Actor, at: datetime) -> tuple[Rebalance, bool]:
    """Work out and keep a rebalance; see `portfolio.proposing.propose`. Where a rule asks for a second person, one is asked.

    What may not be traded now, by the restricted list, stays as it is.
    """
    rebalance, new = proposing.propose(wish, restricted=restricted_instruments(at=at), actor=actor, at=at)
    assert rebalance is not None  # noqa: S101 - an empty one is kept, too: it tells why nothing is traded
    if new and rebalance.second_person:
        _ask(rebalance, actor, at)
    return rebalance, new


def propose_by_rule(rule: RebalanceRule, *, actor: Actor, at: datetime) -> Rebalance | None:
    """Propose what an account's rule calls for; None where nothing is to be traded, or the day has its proposal already.

    A rule without a calendar looks at its bands; one with a calendar proposes on its day and goes on to the next.
    """
    assert rule.model is not None  # noqa: S101 - rules without one are not looked at
    calendar = rule.every != RebalanceRule.Every.NEVER
    spelled = {"method": CALENDAR if calendar else BANDS, **rule.options}
    targets = rule.model.targets
    key = f"rule:{rule.pk}:{(rule.next_on if calendar and rule.next_on else at.date()).isoformat()}"
    if Rebalance.objects.filter(key=key).exists() or _under_way(rule):
        return None
    wish = Wish(
        [rule.account.code],
        targets,
        parse_targets(targets),
        parse_options(spelled),
        key,
        "by the account's rule",
        rule.next_on,
    )
    made, _ = proposing.propose(wish, restricted=restricted_instruments(at=at), actor=actor, at=at, unless_empty=True)
    if calendar:
        proposing.turn_page(rule, at=at)
    if made is not None and made.second_person:
        _ask(made, actor, at)
    return made


def _under_way(rule: RebalanceRule) -> bool:
    """Tell whether the account has a rebalance that waits or trades: another would be made of what is about to change."""
    return Rebalance.objects.filter(parts__account_id=rule.account_id).exclude(status__in=ENDED).exists()


@in_transaction
def _ask(rebalance: Rebalance, actor: Actor, at: datetime) -> Approval:
    accounts = sorted(rebalance.parts.values_list("account__code", flat=True))
    content = {"rebalance": str(rebalance.pk), "accounts": accounts, "trades": rebalance.content_hash}
    return risk.ask(Approval.Kind.REBALANCE, rebalance.pk, "execute", content, actor=actor, at=at)


@in_transaction
def approve(rebalance_id: UUID, *, seen: str = "", actor: Actor, at: datetime) -> Rebalance:
    """Agree to what was proposed; `seen` is the hash of the trades that the person looked at, empty for not told.

    Raises `Conflict` (not_proposed, content_changed), and where a second person is asked for what `risk.operations.settle`
    raises: approver_is_maker above all.
    """
    rebalance = _proposed(rebalance_id, actor, at)
    if seen not in ("", rebalance.content_hash) or not proposing.is_as_proposed(rebalance):
        raise Conflict("content_changed", "This is not what was proposed; look at it again.")
    if rebalance.second_person:
        risk.settle(find_approval(rebalance.pk).pk, "approve", reason="", actor=actor, at=at)
    proposing.approve(rebalance, actor=actor, at=at)
    return rebalance


@in_transaction
def refuse(rebalance_id: UUID, *, reason: str, actor: Actor, at: datetime) -> Rebalance:
    """Turn a proposal down as the second person. Raises what `approve` raises."""
    rebalance = _proposed(rebalance_id, actor, at)
    risk.settle(find_approval(rebalance.pk).pk, "refuse", reason=reason, actor=actor, at=at)
    proposing.move(rebalance, Status.REFUSED, reason=reason, actor=actor, at=at)
    return rebalance


def _proposed(rebalance_id: UUID, actor: Actor, at: datetime) -> Rebalance:
    rebalance = proposing.locked(rebalance_id)
    require_grants(rebalance, actor, at)
    if rebalance.status != Status.PROPOSED:
        raise Conflict("not_proposed", f"The rebalance is {rebalance.status}.")
    return rebalance


def execute(rebalance_id: UUID, *, actor: Actor, at: datetime) -> Rebalance:
    """Begin to trade what was approved and take the first step; a repeat takes the next one.

    Raises `Conflict`: not_approved, proposal_expired, positions_moved since it was made, rebalance_running in an account.
    """
    _begin(rebalance_id, actor, at)
    advance(rebalance_id, at=at)
    return Rebalance.objects.get(pk=rebalance_id)


@in_transaction
def _begin(rebalance_id: UUID, actor: Actor, at: datetime) -> None:
    rebalance = proposing.locked(rebalance_id)
    require_grants(rebalance, actor, at)
    if rebalance.status == Status.EXECUTING or (rebalance.status in ENDED and rebalance.executed_at):
        return
    if rebalance.status != Status.APPROVED:
        raise Conflict("not_approved", f"The rebalance is {rebalance.status}; approve it first.")
    if at - rebalance.created_at > FRESH:
        raise Conflict("proposal_expired", "The proposal is older than a day; make a new one.")
    if not proposing.is_as_proposed(rebalance):
        raise Conflict("content_changed", "This is not what was approved; make a new one.")
    if moved := proposing.moved_since(rebalance):
        raise Conflict(
            "positions_moved", f"Something else was traded since: {', '.join(moved[:5])}. Make a new proposal."
        )
    proposing.begin(rebalance, actor=actor, at=at)


def cancel(rebalance_id: UUID, *, reason: str, actor: Actor, at: datetime) -> Rebalance:
    """End a rebalance: nothing more of it is placed, and what works is canceled; what was traded stays traded.

    Raises `Conflict` (rebalance_ended).
    """
    _stop(rebalance_id, reason, actor, at)
    advance(rebalance_id, at=at)
    return Rebalance.objects.get(pk=rebalance_id)


@in_transaction
def _stop(rebalance_id: UUID, reason: str, actor: Actor, at: datetime) -> None:
    rebalance = proposing.locked(rebalance_id)
    require_grants(rebalance, actor, at)
    if rebalance.status in ENDED:
        raise Conflict("rebalance_ended", f"The rebalance is {rebalance.status}.")
    if rebalance.status == Status.EXECUTING:
        proposing.move(rebalance, Status.CANCELING, reason=reason, actor=actor, at=at)
    elif rebalance.status != Status.CANCELING:
        risk.withdraw([rebalance.pk])
        proposing.move(rebalance, Status.CANCELED, reason=reason, actor=actor, at=at)


def require_grants(rebalance: Rebalance, actor: Actor, at: datetime) -> None:
    """Raise `Forbidden` unless a user may trade every account of a rebalance now; a login at the machine may."""
    if actor.user_id is None:
        return
    wanted = set(rebalance.parts.values_list("account_id", flat=True))
    grants = AccountGrant.objects.filter(user_id=actor.user_id, account_id__in=wanted)
    valid = {g.account_id for g in grants if g.expires_at is None or g.expires_at > at}
    if wanted - valid:
        raise Forbidden("not_granted", "You may not trade all accounts of this rebalance.")


# ---------------------------------------------------------------- following


def advance_rebalances(*, at: datetime) -> int:
    """Take the next step of every rebalance that is under way; return how many."""
    running = Rebalance.objects.filter(status__in=(Status.EXECUTING, Status.CANCELING)).order_by("id")
    return each(list(running.values_list("id", flat=True)), lambda pk: advance(pk, at=at))


def advance(rebalance_id: UUID, *, at: datetime) -> None:
    """Take the next step: place what is due, cancel what is to end, note how far orders are, and end it with the last."""
    while _place(rebalance_id, at):
        pass
    for batch in chunks(_to_cancel(rebalance_id), CANCELS_MAX):
        cancel_batch(batch, actor=Actor.system("rebalancing"), at=at, reason="the rebalance was canceled")
    _note(rebalance_id, at)


@in_transaction
def _place(rebalance_id: UUID, at: datetime) -> bool:
    """Place one batch of what is due; tell whether there was any."""
    rebalance = proposing.locked(rebalance_id)
    if rebalance.status != Status.EXECUTING:
        return False
    lines = [*rebalance.lines.exclude(side="").order_by("number")]
    due = _due(rebalance, lines, at)
    if not due:
        return False
    actor = _executor(rebalance)
    batch = due[:BATCH_MAX]
    codes = _codes(batch)
    traded = [line for line in batch if line.placed_quantity]
    requests = [Request(_ticket(rebalance, line, codes), actor, origin=ORIGIN) for line in traded]
    for line, placed in zip(traded, place_locked(requests, at=at) if requests else [], strict=True):
        line.order_id = placed.order_id
        line.outcome = placed.problem.detail[:OUTCOME_MAX] if placed.problem else "placed"
    proposing.note(batch)
    return True


def _codes(lines: Iterable[RebalanceLine]) -> dict[int, str]:
    return dict(Account.objects.filter(id__in={line.account_id for line in lines}).values_list("id", "code"))


def _executor(rebalance: Rebalance) -> Actor:
    """Return who executes it: the next step acts for the person who began, by a program."""
    return Actor(rebalance.executed_by, rebalance.executor_id, automated=True)


def _due(rebalance: Rebalance, lines: Sequence[RebalanceLine], at: datetime) -> list[RebalanceLine]:
    """Return the lines to be placed now, with the quantity to be placed: every sale, and the buys of an account whose cash
    pays for them, or once its sales are over for as much as it pays for then."""
    states = _states(lines)
    waiting = [line for line in lines if not line.outcome]
    sales = [line for line in waiting if line.side != "buy"]
    for line in sales:
        line.placed_quantity = line.quantity
    if sales:
        return sales  # in a batch of their own: what they hold or bring is known when the buys are looked at
    buys: dict[int, list[RebalanceLine]] = {}
    for line in waiting:
        buys.setdefault(line.account_id, []).append(line)
    selling = {x.account_id for x in lines if x.side != "buy" and x.order_id and not _is_over(states.get(x.order_id))}
    return [line for account, group in buys.items() for line in _affordable(account, group, account in selling, at)]


def _affordable(
    account_id: int, buys: list[RebalanceLine], selling: bool, at: datetime
) -> list[RebalanceLine]:  # fmt: skip
    """Return buys with what is to be placed of each; none while sales may still bring the cash they need."""
    account = Account.objects.get(pk=account_id)
    instruments = brokers.instruments()
    intents = {line.pk: _intent(line, account) for line in buys}
    gate = Gate(load_facts(list(intents.values()), at=at))
    cost = {line.pk: _unit_cost(gate, intents[line.pk]) + line.cost / line.quantity for line in buys}
    free = gate.free_cash(account.pk, account.base_currency)
    wanted = {line.pk: (line.quantity, instruments[line.instrument_id].lot_size) for line in buys}
    needed = sum((line.quantity * cost[line.pk] for line in buys), ZERO)
    if selling and (free is None or needed > free):
        return []
    for line, quantity in zip(buys, brought_down(wanted, needed if free is None else free, cost).values(), strict=True):
        line.placed_quantity = quantity
        if not quantity:
            line.outcome = "no cash was left for it"
    return buys


def _intent(line: RebalanceLine, account: Account) -> Intent:
    return Intent(
        order_id=line.pk,
        account_id=account.pk,
        account_code=account.code,
        base_currency=account.base_currency,
        account_open=True,
        instrument=brokers.instruments()[line.instrument_id],
        side=line.side,
        quantity=line.quantity,
        order_type=_order_type(line),
        limit_price=line.limit_price,
    )


def _unit_cost(gate: Gate, intent: Intent) -> Decimal:
    """Return what risk will hold for one unit, in the account's currency; zero without a price: risk refuses it and says so."""
    if intent.instrument.id not in gate.facts.quotes:
        return ZERO
    unit = gate.unit_amount(intent, intent.quantity)
    return gate.convert(unit, intent.instrument.currency, intent.base_currency) or ZERO


def _order_type(line: RebalanceLine) -> str:
    return "market" if line.limit_price is None else "limit"


def _ticket(rebalance: Rebalance, line: RebalanceLine, codes: Mapping[int, str]) -> Ticket:
    lots = tuple(UUID(s["lot"]) for s in line.sales or [])[:LOTS_MAX]
    assert line.placed_quantity is not None  # noqa: S101 - set just before
    return Ticket(
        account=codes[line.account_id],
        symbol=brokers.instruments()[line.instrument_id].symbol,
        side=line.side,
        quantity=line.placed_quantity,
        order_type=_order_type(line),
        limit_price=line.limit_price,
        client_order_id=order_name(rebalance.pk, line.number),
        note=f"rebalance {rebalance.pk}",
        lots=lots if line.side == "sell" else (),
    )


def order_name(rebalance_id: UUID, number: int) -> str:
    """Return the `client_order_id` of the order of a line."""
    return f"reb-{rebalance_id.hex}-{number}"


def _states(lines: Iterable[RebalanceLine]) -> dict[UUID, Order]:
    return Order.objects.in_bulk([line.order_id for line in lines if line.order_id])


def _is_over(order: Order | None) -> bool:
    return order is None or (order.status in CLOSED and not order.unknown)


def _to_cancel(rebalance_id: UUID) -> list[UUID]:
    """Return the orders of a rebalance that is to end and that were not asked to end yet."""
    ended = Rebalance.objects.filter(pk=rebalance_id, status=Status.CANCELING)
    lines = RebalanceLine.objects.filter(rebalance__in=ended, order_id__isnull=False)
    asked = Order.objects.filter(id__in=list(lines.values_list("order_id", flat=True)))
    return list(asked.exclude(status__in=[*CLOSED, "pending_cancel"]).order_by("id").values_list("id", flat=True))


@in_transaction
def _note(rebalance_id: UUID, at: datetime) -> None:
    """Write how far the orders are; end the rebalance when nothing more can come of it."""
    rebalance = proposing.locked(rebalance_id)
    if rebalance.status not in (Status.EXECUTING, Status.CANCELING):
        return
    lines = [*rebalance.lines.exclude(side="").order_by("number")]
    states = _states(lines)
    changed = []
    for line in lines:
        order = states.get(line.order_id) if line.order_id else None
        if order is None:
            continue
        told = str(order.status) + (f": {order.reason_detail or order.reason}" if order.reason else "")
        if (line.filled_quantity, line.outcome) != (order.filled_quantity, told[:OUTCOME_MAX]):
            line.filled_quantity, line.outcome = order.filled_quantity, told[:OUTCOME_MAX]
            changed.append(line)
    proposing.note(changed)
    if not all(_is_over(states.get(line.order_id)) for line in lines if line.order_id):
        return
    system = Actor.system("rebalancing")
    if rebalance.status == Status.CANCELING:
        proposing.move(rebalance, Status.CANCELED, actor=system, at=at)
    elif all(line.outcome for line in lines):
        whole = all(line.filled_quantity == line.quantity for line in lines)
        proposing.move(rebalance, Status.DONE if whole else Status.INCOMPLETE, actor=system, at=at)
