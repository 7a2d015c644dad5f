"""Block orders: one order for several accounts, and what it fills given to them at one average price, to the last unit.

Each account's share is judged, and held for, in that account; the order itself trades in an account of the desk's that ties
nothing by it. When it is over (and again, should a fill come late) what was filled is divided by largest remainders into
shares of whole lots; each account gets an order of origin allocation, filled at the average price, and the block's account one
of the other side, so that nothing of it stays there. Money is divided to the last unit, too: fees by the quantities, and what
the rounding of the average leaves goes to the largest share as a fee item of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog

from brokers import queries as brokers
from brokers.domain.reference import InstrumentRef
from oms.journal import operations as journal
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.decimals import CENTS, ZERO, is_multiple, money
from oms.kernel.errors import Conflict, Invalid, InvalidFields, Refused
from oms.kernel.ids import first_id, uuid7
from oms.runtime import sql
from oms.runtime.transactions import each, in_transaction
from orders.domain.tickets import Ticket
from orders.models import Allocation, Block, BlockShare, ChildOrder, Execution, Order
from orders.operations.placing import Request, place_locked
from orders.operations.recording import Book, lock_accounts, lock_book, refold, write
from orders.operations.reporting import fees_in, position_entries, settle_child, total_fees
from orders.queries import average_price
from orders.states import ALLOCATION, BLOCK, CLOSED, OrdStatus
from portfolio import operations as portfolio
from portfolio.domain.allocating import divide
from portfolio.domain.fills import Fill
from portfolio.models import Account, AccountGrant, BrokerLink
from risk import operations as risk
from risk.domain.intents import Intent

SHARES_MAX = 500
LATE_DAYS = timedelta(days=7)
"""For how long after it was placed a block is looked at for late fills."""
FINEST = Decimal("1e-10")
ACTOR = Actor.system("allocation")
log = structlog.get_logger(__name__)


# ---------------------------------------------------------------- placing


def place_block(ticket: Ticket, shares: Mapping[str, Decimal], *, actor: Actor, at: datetime) -> tuple[Block, bool]:
    """Place one order for several accounts, given as account code to quantity; return the block, and whether it is new.

    `ticket.account` is the account it trades in, its quantity that of all shares. The ticket's `client_order_id` makes a
    repeat harmless. Raises `InvalidFields` for shares that can't be, `Refused` with risk's reason where any account may not
    have its share: then nothing is placed.
    """
    return _place_block(ticket, dict(shares), actor, at)


@in_transaction
def _place_block(ticket: Ticket, shares: dict[str, Decimal], actor: Actor, at: datetime) -> tuple[Block, bool]:
    accounts = {a.code: a for a in Account.objects.filter(code__in=[ticket.account, *shares]).order_by("id")}
    instrument = brokers.instruments_by_symbol().get(ticket.symbol)
    _judge(ticket, shares, accounts, instrument, actor, at)
    assert instrument is not None  # noqa: S101 - judged just now
    lock_accounts([a.pk for a in accounts.values()])
    digest = sha256(
        json.dump_bytes([ticket.digest().hex(), {c: decimals.text(q) for c, q in sorted(shares.items())}])
    ).digest()
    known = Block.objects.filter(
        order__account=accounts[ticket.account], order__client_order_id=ticket.client_order_id or None
    ).first()
    if known is not None:
        if bytes(known.body_hash) != digest:
            raise Refused(
                "idempotency_conflict", "This id was used for another block; use a new one.", field="client_order_id"
            )
        return known, False
    parts = {code: uuid7() for code in shares}
    intents = [
        _intent(parts[c], accounts[c], instrument, ticket, q, actor)
        for c, q in sorted(shares.items(), key=lambda s: accounts[s[0]].pk)
    ]
    for intent, verdict in zip(intents, risk.check(intents, at=at), strict=True):
        if not verdict.approved:
            raise Refused(str(verdict.reason), f"{intent.account_code}: {verdict.detail}")
    [placed] = place_locked([Request(ticket, actor, origin=BLOCK)], at=at)
    if placed.problem:
        raise placed.problem
    assert placed.order_id is not None  # noqa: S101 - without a problem there is an order
    order = Order.objects.get(pk=placed.order_id)
    if not hasattr(order, "block") and not placed.created:
        raise Conflict("idempotency_conflict", "This id was used for an order of one account; use a new one.")
    if order.status == OrdStatus.DENIED:
        raise Refused(str(order.reason), order.reason_detail or "Risk or routing refused the block.")
    block = Block.objects.create(order=order, quantity=order.quantity, body_hash=digest, created_at=at)
    sql.insert(
        [
            BlockShare(id=parts[code], block_id=order.id, number=n, account_id=accounts[code].pk, quantity=quantity)
            for n, (code, quantity) in enumerate(shares.items(), start=1)
        ]
    )
    return block, True


def _judge(
    ticket: Ticket, shares: Mapping[str, Decimal], accounts: Mapping[str, Account], instrument: InstrumentRef | None,
    actor: Actor, at: datetime,
) -> None:  # fmt: skip
    faults = []
    if instrument is None or not instrument.active:
        faults.append(Invalid("unknown_symbol", "No such instrument.", field="symbol"))
    if not 0 < len(shares) <= SHARES_MAX or ticket.account in shares:
        faults.append(Invalid("not_a_list", f"Name 1 to {SHARES_MAX} accounts, not the block's own.", field="shares"))
    if ticket.lots or ticket.size_by:
        faults.append(Invalid("not_allowed", "A block has a quantity for each account, and no lots.", field="shares"))
    grants = AccountGrant.objects.filter(user_id=actor.user_id or 0, account__code__in=[ticket.account, *shares])
    allowed = {g.account_id for g in grants if g.expires_at is None or g.expires_at > at}
    links: dict[int, set[int]] = defaultdict(set)
    for account_id, broker_id in BrokerLink.objects.filter(account__in=accounts.values()).values_list(
        "account_id", "broker_id"
    ):
        links[account_id].add(broker_id)
    for code in (ticket.account, *shares):
        field = "account" if code == ticket.account else f"shares.{code}"
        account = accounts.get(code)
        if account is None or (actor.user_id is not None and account.pk not in allowed):
            faults.append(Invalid("unknown_account", "No such account, or none you may trade.", field=field))
        elif links[accounts[ticket.account].pk] - links[account.pk] if ticket.account in accounts else False:
            faults.append(
                Invalid("no_account", "The account is not at every broker that the block may go to.", field=field)
            )
        if code in shares and instrument and not (shares[code] > 0 and is_multiple(shares[code], instrument.lot_size)):
            lot = decimals.text(instrument.lot_size)
            faults.append(Invalid("off_lot", f"The quantity must be a multiple of {lot}.", field=field))
    if faults:
        raise InvalidFields(faults)


def _intent(
    share_id: UUID, account: Account, instrument: InstrumentRef, ticket: Ticket, quantity: Decimal, actor: Actor
) -> Intent:
    return Intent(
        order_id=share_id,
        account_id=account.pk,
        account_code=account.code,
        base_currency=account.base_currency,
        account_open=account.status == Account.Status.OPEN,
        instrument=instrument,
        side=ticket.side,
        quantity=quantity,
        order_type=ticket.order_type,
        limit_price=ticket.limit_price,
        stop_price=ticket.stop_price,
        user_id=actor.user_id,
        user_name=actor.name.partition(":")[2],
        automated=actor.automated,
        time_in_force=ticket.time_in_force,
    )


# ---------------------------------------------------------------- allocating


def advance_blocks(*, at: datetime) -> int:
    """Allocate what is over, and what was filled late; return how many blocks were looked at."""
    rows = sql.run(
        """
        SELECT b.order_id FROM orders_block b JOIN orders_order o ON o.id = b.order_id
        WHERE (b.state = 'working' OR b.order_id > %(since)s)
          AND ((o.status = ANY(%(closed)s) AND NOT o.unknown AND b.state = 'working')
               OR (b.state = 'allocated' AND o.filled_quantity <> b.allocated))
        ORDER BY b.order_id
        """,
        {"since": first_id(at - LATE_DAYS), "closed": sorted(CLOSED)},
    ).fetchall()
    return each((pk for (pk,) in rows), lambda pk: allocate(pk, at=at))


@in_transaction
def allocate(order_id: UUID, *, at: datetime) -> Block:
    """Give what a block filled and nobody has yet to its accounts. A repeat gives nothing twice."""
    shares = list(BlockShare.objects.filter(block_id=order_id).select_related("account").order_by("number"))
    own = Order.objects.values_list("account_id", flat=True).get(pk=order_id)
    lock_accounts([own, *(s.account_id for s in shares)])
    locked = lock_book([order_id])
    order = locked.orders[order_id]
    block = Block.objects.select_for_update(no_key=True, of=("self",)).get(pk=order_id)
    shares = list(BlockShare.objects.filter(block_id=order_id).select_related("account").order_by("number"))
    new = order.filled_quantity - block.allocated
    if new < 0:
        block.state = Block.State.BROKEN
        block.save(update_fields=["state"])
        log.error(
            "block_broken", order_id=str(order_id), allocated=str(block.allocated), filled=str(order.filled_quantity)
        )
        return block
    if new:
        _allocate(order, block, shares, locked.children_of(order_id), at)
    if order.status in CLOSED and not order.unknown:
        block.state = Block.State.ALLOCATED
        risk.resize({s.id: ZERO for s in shares})
    else:
        risk.resize({s.id: s.quantity - s.allocated for s in shares})
    block.allocated_at = at
    block.save()
    return block


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one account gets at one broker, at the average price."""

    broker_id: int
    quantity: Decimal
    items: tuple[dict[str, str], ...] = ()


def _allocate(
    order: Order, block: Block, shares: Sequence[BlockShare], children: Sequence[ChildOrder], at: datetime
) -> None:
    instrument = brokers.instruments()[order.instrument_id]
    before = _allocated_before(block)
    by_broker: dict[int, Decimal] = defaultdict(lambda: ZERO)
    for child in children:
        by_broker[child.broker_id] += child.filled_quantity
    by_broker = {b: q - before.get(b, ZERO) for b, q in sorted(by_broker.items()) if q > before.get(b, ZERO)}
    new = order.filled_quantity - block.allocated
    amount = order.filled_amount - block.allocated_amount
    price = average_price(amount, new)
    assert price is not None  # noqa: S101 - something is new
    unit = instrument.lot_size if is_multiple(new, instrument.lot_size) else FINEST
    wanted = {s.id: s.quantity - s.allocated for s in shares}
    got = {k: q for k, q in divide(new, wanted, unit).items() if q}
    fees, told = _new_fees(order, block)
    pieces = _pieces(by_broker, got)
    paid = {c: divide(f, {k: abs(q) for k, q in got.items()}, CENTS) for c, f in fees.items()}
    signed = Decimal(1) if order.side == "buy" else Decimal(-1)
    rounded = sum((money(p.quantity * price) for group in pieces.values() for p in group), ZERO)
    for key, group in pieces.items():
        items = [_item("allocated", f[key], c) for c, f in paid.items() if f[key]]
        if key == max(got, key=lambda k: got[k]) and amount != rounded:
            items.append(_item("rounding", signed * (amount - rounded), instrument.currency))
        group[0] = replace(group[0], items=tuple(items))
    others = [_Piece(b, q) for b, q in by_broker.items()]
    back = [_item("allocated", -f, c) for c, f in fees.items()]
    left = amount - sum((money(p.quantity * price) for p in others), ZERO)
    if left:
        back.append(_item("rounding", -signed * left, instrument.currency))
    others[0] = replace(others[0], items=tuple(back))
    book, executions, fills = Book(), list[Execution](), list[Fill]()
    done_at = max(Execution.objects.filter(order=order).values_list("executed_at", flat=True))
    links = {
        (a, b): external
        for a, b, external in BrokerLink.objects.filter(
            account_id__in=[order.account_id, *(s.account_id for s in shares)]
        ).values_list("account_id", "broker_id", "broker_account_id")
    }
    round_number = block.allocations.filter(share=None).count() + 1
    allocations = []
    for share in (*shares, None):
        group = others if share is None else pieces.get(share.id, [])
        if not group:
            continue
        made = _order(order, share, sum((p.quantity for p in group), ZERO), round_number, at)
        allocations.append(Allocation(order_id=made.id, block_id=block.pk, share_id=share.id if share else None))
        book.orders[made.id] = made
        for piece in group:
            account_id = links[made.account_id, piece.broker_id]
            _fill_piece(book, made, piece, price, instrument, account_id, done_at, at, executions, fills)
        refold(book, made.id, at=at)
    sql.insert(list(book.orders.values()))
    sql.insert(list(book.children.values()))
    entries = write(book, executions=executions, kinds=dict.fromkeys(book.orders, "order.allocated"))
    sql.insert(allocations)
    for share in shares:
        share.allocated += got.get(share.id, ZERO)
    sql.update(list(shares), ("allocated",))
    block.allocated, block.allocated_amount, block.allocated_fees = order.filled_quantity, order.filled_amount, told
    block.save()
    touched = portfolio.book(fills, at=at)
    journal.append(entries + position_entries(touched), actor=ACTOR, at=at)


def _allocated_before(block: Block) -> dict[int, Decimal]:
    """Return what was given away of each broker's fills before: what the block's account gave back there."""
    rows = sql.run(
        "SELECT c.broker_id, sum(c.filled_quantity) FROM orders_allocation a JOIN orders_childorder c ON c.order_id = a.order_id "
        "WHERE a.block_id = %s AND a.share_id IS NULL GROUP BY 1",
        [block.pk],
    )
    return dict(rows.fetchall())


def _new_fees(order: Order, block: Block) -> tuple[dict[str, Decimal], dict[str, str]]:
    """Return fees by currency that were not given away before, and all of them as the block is to remember."""
    live = Execution.objects.filter(order=order).exclude(kind=Execution.Kind.BUST)
    undone = set(Execution.objects.filter(order=order, ref__isnull=False).values_list("ref_id", flat=True))
    totals: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for execution in live:
        if execution.pk not in undone:
            for item in execution.fee_items:
                totals[item["currency"]] += Decimal(item["amount"])
    known = {c: Decimal(f) for c, f in block.allocated_fees.items()}
    new = {c: money(totals.get(c, ZERO)) - known.get(c, ZERO) for c in sorted(totals.keys() | known.keys())}
    return {c: f for c, f in new.items() if f}, {c: decimals.text(money(f)) for c, f in sorted(totals.items())}


def _pieces(by_broker: Mapping[int, Decimal], got: Mapping[UUID, Decimal]) -> dict[UUID, list[_Piece]]:
    """Return what each account gets at which broker: accounts in their order are served from brokers in theirs."""
    left = dict(by_broker)
    pieces: dict[UUID, list[_Piece]] = {}
    for key, quantity in got.items():
        for broker_id in list(left):
            part = min(quantity, left[broker_id])
            if part:
                pieces.setdefault(key, []).append(_Piece(broker_id, part))
                quantity, left[broker_id] = quantity - part, left[broker_id] - part
    return pieces


def _item(kind: str, amount: Decimal, currency: str) -> dict[str, str]:
    return {"kind": kind, "amount": decimals.text(amount), "currency": currency}


def _order(order: Order, share: BlockShare | None, quantity: Decimal, round_number: int, at: datetime) -> Order:
    """Return the order that stands for a share, or in the block's account for the other side of all of them."""
    number = share.number if share else 0
    side = order.side if share else ("sell" if order.side == "buy" else "buy")
    name = f"alloc-{order.id.hex}-{number}-{round_number}"
    return Order(
        id=uuid7(), account_id=share.account_id if share else order.account_id, client_order_id=name,
        body_hash=sha256(name.encode()).digest(), instrument_id=order.instrument_id, side=side, quantity=quantity,
        leaves_quantity=quantity, order_type="market", time_in_force="day", note=f"block {order.id}", origin=ALLOCATION,
        strategy_id=order.strategy_id, created_by_id=order.created_by_id, created_at=at, updated_at=at, decided_at=at,
    )  # fmt: skip


def _fill_piece(
    book: Book, order: Order, piece: _Piece, price: Decimal, instrument: InstrumentRef, account_id: int, done_at: datetime,
    at: datetime,     executions: list[Execution], fills: list[Fill],
) -> None:  # fmt: skip
    child = ChildOrder(
        id=uuid7(), order_id=order.id, broker_id=piece.broker_id, broker_account_id=account_id, client_order_id="",
        quantity=piece.quantity, leaves_quantity=piece.quantity, time_in_force="day", created_at=at, updated_at=at,
        filled_quantity=piece.quantity, filled_amount=piece.quantity * price, ended_as=OrdStatus.CANCELED,
    )  # fmt: skip
    book.take_in(child)
    settle_child(book, child, at=at)
    items = list(piece.items)
    execution_id = uuid7()
    execution = Execution(
        id=execution_id, child_id=child.id, order_id=order.id, broker_id=piece.broker_id, broker_account_id=account_id,
        broker_execution_id=f"alloc-{execution_id}", kind=Execution.Kind.TRADE, side=order.side, quantity=piece.quantity,
        price=price, fees=total_fees(items, instrument.currency), fee_items=items,
        settle_date=brokers.settle_date(instrument, done_at), executed_at=done_at, received_at=at,
    )  # fmt: skip
    order.fees += fees_in(items, instrument.currency) if execution.fees is None else execution.fees
    executions.append(execution)
    fills.append(
        Fill(
            source_id=execution.id, kind=execution.kind, ref_source_id=None, account_id=order.account_id,
            broker_id=piece.broker_id, instrument_id=order.instrument_id, quantity=execution.signed_quantity(), price=price,
            fees=fees_in(items, instrument.currency), currency=instrument.currency, executed_at=done_at,
            settle_date=execution.settle_date, strategy_id=order.strategy_id,
            other_fees=_foreign(items, instrument.currency),
        )
    )  # fmt: skip


def _foreign(items: Iterable[Mapping[str, Any]], currency: str) -> tuple[tuple[str, Decimal], ...]:
    return tuple((i["currency"], Decimal(i["amount"])) for i in items if i["currency"] != currency)
