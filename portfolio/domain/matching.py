"""What closes what: every lot method, over a whole history or on top of open lots.

`portfolio.domain.lots` does first in, first out alone, forwards and backwards, and is what most fills need. This does
all of it, corporate actions at their place among the trades, forwards only: a late fill, a bust or a correction lets
the holding's history be matched again from its beginning, so that the end never depends on who came first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from uuid import UUID, uuid5

from oms.kernel.decimals import EXACT, ZERO, money
from portfolio.domain import actions
from portfolio.domain.actions import (
    ONE_TO_ONE,
    Act,
    CapitalReturn,
    CostChange,
    Merger,
    Receipt,
    SpinOff,
    Split,
    Subscription,
)
from portfolio.domain.lots import LiveTrade, OpenLot, notional
from portfolio.domain.policies import AVERAGE, EXPENSED, HIFO, IN_COST, LIFO, POOLED, SECTION_104, Policies, Policy

WINDOW = timedelta(days=30)
"""Days before and after a sale in which a purchase counts as its replacement, or, in the United Kingdom, as its match."""
SAME_DAY, THIRTY_DAYS, POOL = "same_day", "30_day", "pool"
Worth = Callable[[Decimal, Decimal], Decimal]
"""What a signed quantity is worth at a price: `notional`, or that of an inverse contract."""


@dataclass(slots=True)
class Closure:
    """A part of a lot that a trade closed: long above zero, short below. `opened_by` is the trade that made the lot.

    Where a corporate action did it, `trade` names that; of the cost alone it took a part where the quantity is zero.
    `cost` and `value` are what it had cost and what the trade paid for it, signed like quantities of the lot and of the
    trade. `disallowed` is the loss that a wash sale moved to another lot.
    """

    trade: UUID
    lot: UUID
    opened_by: UUID
    held_since: datetime
    closed_at: datetime
    quantity: Decimal
    cost: Decimal
    value: Decimal
    match: str = ""
    disallowed: Decimal = ZERO

    @property
    def gain(self) -> Decimal:
        """Return the gain as the trade made it."""
        return -self.value - self.cost

    @property
    def recognized(self) -> Decimal:
        """Return the gain that counts: without the loss of a wash sale."""
        return self.gain + self.disallowed


@dataclass(slots=True)
class _Loss:
    """A loss that waits for its replacement, until 30 days are over; of `whole` units (signed), in those of today."""

    closure: Closure
    whole: Decimal
    left: Decimal


def amount(trade: LiveTrade, policy: Policy, worth: Worth = notional) -> Decimal:
    """Return what a trade moves in cash for its securities, buys above zero: with its fees where they are part of cost."""
    value = worth(trade.quantity, trade.price)
    return value + trade.fees if policy.commissions == IN_COST else value


def is_long_term(held_since: datetime, until: datetime) -> bool:
    """Tell whether something was held for more than a year, counted from the day after it was bought."""
    bought, sold = _day(held_since), _day(until)
    leap_day = (bought.month, bought.day) == (2, 29)
    anniversary = date(bought.year + 1, 2, 28) if leap_day else bought.replace(year=bought.year + 1)
    return sold > anniversary


def price_of(lot: OpenLot) -> Decimal:
    """Return what one unit of an open lot cost."""
    return lot.price if lot.basis is None else EXACT.divide(lot.basis, lot.remaining)


class Matching:
    """The open lots of one holding while trades and corporate actions are matched, the oldest first.

    `given` holds the lots that an action handed to another instrument, and `moved` what it changed of the cost of what is
    open, by its id; `seen` is the last trade matched.
    """

    def __init__(self, lots: Iterable[OpenLot], policies: Policies, worth: Worth = notional) -> None:
        self.policies = policies
        self.worth = worth
        self.lots: list[OpenLot] = sorted((replace(lot) for lot in lots), key=lambda lot: lot.key)
        self.closures: list[Closure] = []
        self.given: dict[UUID, tuple[OpenLot, ...]] = {}
        self.moved: dict[UUID, Decimal] = {}
        self.seen = UUID(int=0)
        self._losses: list[_Loss] = []
        self._replaced: set[UUID] = set()

    @property
    def cost(self) -> Decimal:
        """Return what all that is open cost."""
        return sum((lot.cost for lot in self.lots), ZERO)

    def costs(self, trades: Iterable[LiveTrade]) -> dict[UUID, Decimal]:
        """Return by version what each of these trades changed of the cost of what is open, all gains of it counted."""
        found = {
            t.version: amount(t, self.policies.at(t.executed_at), self.worth) if t.quantity else ZERO for t in trades
        }
        for closure in self.closures:
            if closure.trade in found:
                found[closure.trade] += closure.recognized
        return found

    def run(self, items: Iterable[LiveTrade | Act]) -> None:
        """Match trades and actions that come after all that was matched before, given in their order."""
        for policy, run in groupby(items, key=lambda i: self.policies.at(i.executed_at)):
            if policy.method == SECTION_104:
                self._section_104(list(run), policy)
                continue
            if policy.method == AVERAGE:
                self._merge()
            for item in run:
                if isinstance(item, Act):
                    self._act(item, policy)
                else:
                    self.seen = item.version
                    self._match(item, policy)

    # Corporate actions: what they close counts as closed by them, what they hand over is kept in `given`.

    def _act(self, act: Act, policy: Policy) -> None:
        before = self.cost
        match act:
            case Split():
                self._split(act)
                self._trade(act, -act.fraction, act.in_lieu, policy)
            case SpinOff():
                self._spin_off(act)
            case Merger():
                self._merger(act)
            case CapitalReturn():
                for lot in self.lots:
                    self._give_back(act, lot, notional(lot.remaining, act.cash))
            case CostChange():
                self._change_cost(act)
            case Subscription():
                self._trade(act, act.quantity, act.price, policy)
            case Receipt():
                self.seen = act.version
                self.lots = sorted([*self.lots, *(replace(lot) for lot in act.lots)], key=lambda lot: lot.key)
                self._replaced |= {lot.id for lot in act.lots}  # nobody bought them: they replace nothing
                if policy.method in POOLED:
                    self._merge()
                self._trade(act, -act.fraction, act.in_lieu, policy)
            case _:
                raise TypeError(f"nothing says what {act} does to lots")
        self.moved[act.id] = self.moved.get(act.id, ZERO) + self.cost - before

    def _split(self, act: Split) -> None:
        actions.rescale(self.lots, act.ratio)
        for loss in self._losses:
            loss.whole, loss.left = (actions.entitled(q, act.ratio) for q in (loss.whole, loss.left))

    def _trade(self, act: Act, quantity: Decimal, price: Decimal, policy: Policy) -> None:
        """Buy or sell what an action makes us: a fraction, or what rights are for. A lot that it opens bears the name of
        the last trade.
        """
        if not quantity:
            return
        trade = LiveTrade(uuid5(act.id, str(self.seen)), act.id, act.executed_at, quantity, price)
        before = len(self.closures)
        self._match(trade, replace(policy, wash_sales=False, commissions=EXPENSED))
        opened = notional(quantity, price) - sum((c.value for c in self.closures[before:]), ZERO)
        for lot in self.lots:
            if lot.version == act.id:
                lot.version = self.seen
        if opened:
            at = act.executed_at
            self.closures.append(Closure(act.id, trade.id, self.seen, at, at, ZERO, -opened, opened))
        if policy.method in POOLED:
            self._merge()

    def _spin_off(self, act: SpinOff) -> None:
        everything = sum((lot.remaining for lot in self.lots), ZERO)
        part = EXACT.divide(act.held, everything) if act.held is not None and everything else Decimal(1)
        gone = [money(EXACT.multiply(EXACT.multiply(lot.cost, act.share), part)) for lot in self.lots]
        self.given[act.id] = actions.hand_over(self.lots, act.ratio, gone, act.id, part)
        for lot, cost in zip(self.lots, gone, strict=True):
            if self.given[act.id]:
                lot.basis = lot.cost - cost

    def _merger(self, act: Merger) -> None:
        costs = []
        for lot in self.lots:
            cash, sign = notional(lot.remaining, act.cash), 1 if lot.remaining > 0 else -1
            if act.ratio is None:
                self._close(act, lot, lot.remaining, lot.cost, cash)
            elif cash:
                stock = notional(actions.entitled(lot.remaining, act.ratio), act.price)
                gain, left = actions.boot(sign * lot.cost, sign * cash, sign * stock)
                self._close(act, lot, ZERO, cash - sign * gain, cash)
                costs.append(sign * left)
            else:
                costs.append(lot.cost)
        if act.ratio is not None:
            self.given[act.id] = actions.hand_over(self.lots, act.ratio, costs, act.id)
        self.lots, self._losses = [], []

    def _give_back(self, act: Act, lot: OpenLot, cash: Decimal) -> None:
        sign = 1 if lot.remaining > 0 else -1
        taken = sign * actions.give_back(sign * lot.cost, sign * cash)
        lot.basis = lot.cost - taken
        self._close(act, lot, ZERO, taken, cash)

    def _change_cost(self, act: CostChange) -> None:
        left, of = act.amount, sum((lot.remaining for lot in self.lots), ZERO)
        for lot in self.lots:
            part = _share(left, lot.remaining, of)
            lot.basis, left, of = lot.cost + part, left - part, of - lot.remaining

    def _close(self, act: Act, lot: OpenLot, quantity: Decimal, cost: Decimal, cash: Decimal) -> None:
        held = lot.held_since or lot.opened_at
        self.closures.append(Closure(act.id, lot.id, lot.version, held, act.executed_at, quantity, cost, -cash))

    def _match(self, trade: LiveTrade, policy: Policy) -> None:
        left, parts = trade.quantity, []
        for lot in self._candidates(trade, policy):
            if not left:
                break
            taken = lot.remaining if abs(lot.remaining) <= abs(left) else -left
            parts.append((lot, taken, _take(lot, taken)))
            left += taken
        self.lots = [lot for lot in self.lots if lot.remaining]
        whole = amount(trade, policy, self.worth)
        opening = self._opening(trade, left, whole, policy)
        closures = list(_closures(trade, parts, whole - opening))
        self.closures += closures
        if policy.wash_sales:
            for closure in closures:
                self._wash(closure)

    def _candidates(self, trade: LiveTrade, policy: Policy) -> list[OpenLot]:
        """Return what a trade may close in the order it does: the lots chosen for it first."""
        against = [lot for lot in self.lots if (lot.remaining > 0) != (trade.quantity > 0)]
        if policy.method == LIFO:
            against.reverse()
        elif policy.method == HIFO:
            # The smallest gain first: of longs the dearest, of shorts those that brought least.
            against.sort(key=price_of, reverse=trade.quantity < 0)
        if not trade.chosen:
            return against
        place = {lot: n for n, lot in enumerate(trade.chosen)}
        return sorted(against, key=lambda lot: place.get(lot.id, len(place)))

    def _opening(self, trade: LiveTrade, left: Decimal, whole: Decimal, policy: Policy) -> Decimal:
        """Open a lot with what a trade didn't close; return its cost."""
        if not left:
            return ZERO
        lot = OpenLot(trade.id, trade.version, trade.executed_at, trade.price, left, left)
        if policy.commissions == IN_COST or self.worth is not notional:
            lot.basis = _share(whole, left, trade.quantity)
        cost = lot.cost
        self.lots.append(lot)
        if policy.method == AVERAGE:
            self._merge()
        elif policy.wash_sales:
            self._replace_earlier(lot)
        return cost

    def _merge(self) -> None:
        """Make one pool of all lots, which are long or short alike; it keeps the first one's name and day."""
        if len(self.lots) < 2:
            return
        pool, *others = self.lots
        pool.basis = self.cost
        for lot in others:
            pool.remaining += lot.remaining
            pool.quantity += lot.remaining
        pool.price = _price(pool.basis, pool.remaining)
        self.lots = [pool]

    # Wash sales: of longs what was bought again within 30 days either way, of shorts what was sold short again.

    def _wash(self, closure: Closure) -> None:
        """Move a loss to what was opened in the 30 days before and is still held; what is left waits for 30 days."""
        if not closure.quantity or closure.gain >= 0:
            return
        loss = _Loss(closure, closure.quantity, closure.quantity)
        for lot in list(self.lots):
            opened = _same_side(lot, loss) and _day(closure.closed_at) - _day(lot.opened_at) <= WINDOW
            if loss.left and opened and lot.version != closure.opened_by and lot.id not in self._replaced:
                self._move(loss, lot)
        if loss.left:
            self._losses.append(loss)

    def _replace_earlier(self, lot: OpenLot) -> None:
        """Move losses of the 30 days before to what is opened now."""
        day = _day(lot.opened_at)
        self._losses = [x for x in self._losses if x.left and day - _day(x.closure.closed_at) <= WINDOW]
        for loss in self._losses:
            if lot.id in self._replaced:
                break
            if not _same_side(lot, loss):
                continue
            rest = self._move(loss, lot)
            if rest is not None:
                lot = rest

    def _move(self, loss: _Loss, lot: OpenLot) -> OpenLot | None:
        """Add a loss to the cost of a lot, of which it takes no more than was closed; return the rest, a lot of its own.

        Of a short it takes from what that brought. Only longs were held the longer for it.
        """
        rest = self._divide(lot, loss.left) if abs(lot.remaining) > abs(loss.left) else None
        closure = loss.closure
        last = lot.remaining == loss.left
        moved = -closure.recognized if last else _share(-closure.gain, lot.remaining, loss.whole)
        closure.disallowed += moved
        lot.basis = lot.cost + moved
        if lot.remaining > 0:
            lot.held_since = (lot.held_since or lot.opened_at) - (closure.closed_at - closure.held_since)
        loss.left -= lot.remaining
        self._replaced.add(lot.id)
        return rest

    def _divide(self, lot: OpenLot, kept: Decimal) -> OpenLot:
        rest = replace(lot, id=uuid5(lot.id, "rest"), quantity=lot.remaining - kept, remaining=lot.remaining - kept)
        if lot.basis is not None:
            rest.basis = _share(lot.basis, rest.remaining, lot.remaining)
            lot.basis -= rest.basis
        lot.quantity -= rest.quantity
        lot.remaining = kept
        self.lots = sorted([*self.lots, rest], key=lambda lot: lot.key)
        return rest

    # The pool of section 104 with its rules before it: purchases of the same day, then of the 30 days after.

    def _section_104(self, items: Sequence[LiveTrade | Act], policy: Policy) -> None:
        self._merge()
        acts = [i for i in items if isinstance(i, Act)]
        days = list(_days([i for i in items if not isinstance(i, Act)], policy, self.worth))
        bought, sold = [d for d in days if d.quantity > 0], [d for d in days if d.quantity < 0]
        for sale in sold:
            for purchase in bought:
                if purchase.day == sale.day:
                    self._pair(sale, purchase, SAME_DAY)
        for sale in sold:
            for purchase in bought:
                if sale.day < purchase.day <= sale.day + WINDOW:
                    self._pair(sale, purchase, THIRTY_DAYS, _ratio_between(acts, sale.at, purchase.at))
        for act, day in _in_turn(acts, days):
            if act is not None:
                self._act(act, policy)
            if day is not None:
                self.seen = day.trade.version
                self._into_pool(day)

    def _pair(self, sale: "_Day", purchase: "_Day", match: str, ratio: tuple[int, int] = ONE_TO_ONE) -> None:
        """Let a purchase close a sale; `ratio` tells how many units of its day one of the sale's became."""
        wanted = actions.entitled(-sale.left, ratio)
        quantity = min(wanted, purchase.left)
        if quantity <= 0:
            return
        units_sold = -sale.left if quantity == wanted else actions.entitled(quantity, (ratio[1], ratio[0]))
        cost, value = purchase.take(quantity), sale.take(-units_sold)
        # A purchase later than its sale closes it; held since then, for no time at all.
        held = min(purchase.at, sale.at)
        bought = purchase.trade
        self.closures.append(
            Closure(sale.trade.version, bought.id, bought.version, held, sale.at, units_sold, cost, value, match)
        )

    def _into_pool(self, day: "_Day") -> None:
        while day.left and self.lots and (self.lots[0].remaining > 0) != (day.left > 0):
            lot = self.lots[0]
            taken = lot.remaining if abs(lot.remaining) <= abs(day.left) else -day.left
            cost, value = _take(lot, taken), day.take(-taken)
            match, trade = (POOL if taken > 0 else ""), day.trade.version
            self.closures.append(Closure(trade, lot.id, lot.version, lot.opened_at, day.at, taken, cost, value, match))
            self.lots = [lot for lot in self.lots if lot.remaining]
        if day.left:
            quantity, basis = day.left, day.take(day.left)
            first = day.trade
            price = _price(basis, quantity)
            self.lots.append(OpenLot(first.id, first.version, day.at, price, quantity, quantity, basis=basis))
            self._merge()


@dataclass(slots=True)
class _Day:
    """All that was bought, or all that was sold, on one day: one trade in the eyes of the rules. Signed."""

    day: date
    at: datetime
    trade: LiveTrade
    quantity: Decimal
    amount: Decimal
    left: Decimal
    amount_left: Decimal

    def take(self, quantity: Decimal) -> Decimal:
        """Take a part out; return what it cost or brought, signed."""
        part = _share(self.amount_left, quantity, self.left)
        self.left -= quantity
        self.amount_left -= part
        return part


def _same_side(lot: OpenLot, loss: _Loss) -> bool:
    return (lot.remaining > 0) == (loss.whole > 0)


def _ratio_between(acts: Iterable[Act], start: datetime, end: datetime) -> tuple[int, int]:
    """Return what splits after a time and until another made of one unit."""
    new, old = ONE_TO_ONE
    for act in acts:
        if isinstance(act, Split) and start < act.executed_at <= end:
            new, old = new * act.ratio[0], old * act.ratio[1]
    return new, old


def _in_turn(acts: Sequence[Act], days: Sequence[_Day]) -> Iterator[tuple[Act | None, _Day | None]]:
    """Yield actions and days in the order of time, what begins a day before its trades."""
    left = list(acts)
    for day in days:
        while left and left[0].executed_at <= day.at:
            yield left.pop(0), None
        yield None, day
    for act in left:
        yield act, None


def _days(trades: Sequence[LiveTrade], policy: Policy, worth: Worth) -> Iterator[_Day]:
    for day, of_day in groupby(trades, key=lambda t: _day(t.executed_at)):
        both = list(of_day)
        for side in (True, False):
            if chosen := [t for t in both if t.quantity and (t.quantity > 0) == side]:
                quantity = sum((t.quantity for t in chosen), ZERO)
                total = sum((amount(t, policy, worth) for t in chosen), ZERO)
                yield _Day(day, chosen[0].executed_at, chosen[0], quantity, total, quantity, total)


def _closures(trade: LiveTrade, parts: Sequence[tuple[OpenLot, Decimal, Decimal]], value: Decimal) -> Iterator[Closure]:
    """Give every part its share of what the trade paid for all that it closed, to the last digit."""
    whole = sum((taken for _, taken, _ in parts), ZERO)
    for lot, taken, cost in parts:
        part = _share(value, taken, whole)
        value, whole = value - part, whole - taken
        held = lot.held_since or lot.opened_at
        yield Closure(trade.version, lot.id, lot.version, held, trade.executed_at, taken, cost, part)


def _take(lot: OpenLot, quantity: Decimal) -> Decimal:
    """Take a part out of a lot, signed like it; return what it had cost."""
    before, left = lot.cost, lot.remaining - quantity
    if lot.basis is not None:
        lot.basis = before - _share(before, quantity, lot.remaining)
    lot.remaining = left
    return before - lot.cost


def _share(whole: Decimal, part: Decimal, of: Decimal) -> Decimal:
    """Return the part's share of an amount as the books keep money; all of it for the last part."""
    return whole if part == of else money(EXACT.divide(EXACT.multiply(whole, part), of))


def _price(basis: Decimal, quantity: Decimal) -> Decimal:
    return money(EXACT.divide(basis, quantity))


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()
