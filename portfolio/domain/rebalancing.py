"""From targets to trades: which names to trade, how much in whole lots, out of which lots, and what it costs.

Amounts are in the account's base currency. Turnover is what is bought and sold together, as a part of equity.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any
from uuid import UUID

from brokers.domain.fees import charge
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel.decimals import EXACT, ZERO, money
from portfolio.domain.targets import (
    ONE,
    Band,
    Targets,
    five_twenty_five,
    flow_to_targets,
    target_quantity,
    towards_zero,
)

FULL, BANDS, CALENDAR, CASH_FLOW, OPTIMISE = "full", "bands", "calendar", "cash_flow", "optimise"
METHODS = (FULL, BANDS, CALENDAR, CASH_FLOW, OPTIMISE)
BPS = Decimal("0.0001")
PLACES = Decimal("0.00000001")

RESTRICTED, NO_QUOTE, NO_RATE, BELOW_MINIMUM, WASH_SALE, NO_SHORTS, INSIDE_BAND, LESS_THAN_A_LOT, CAPPED = (
    "restricted", "no_quote", "no_rate", "below_min_trade", "wash_sale", "no_shorts", "inside_band", "less_than_a_lot",
    "turnover_cap",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TaxLot:
    """An open long lot. `washes`: a loss taken on it now would not count, as the name was bought within 30 days."""

    id: UUID
    quantity: Decimal
    unit_cost: Decimal
    long_term: bool
    washes: bool = False


@dataclass(frozen=True, slots=True)
class Asset:
    """What a rebalance must know of one instrument in one account; `rate` leads from its currency to the account's."""

    instrument: InstrumentRef
    quantity: Decimal = ZERO
    quote: QuoteRef | None = None
    rate: Decimal | None = None
    schedules: tuple[Sequence[Mapping[str, Any]], ...] = ()
    lots: tuple[TaxLot, ...] = ()
    restricted: bool = False
    buying_washes: bool = False  # a loss of the last 30 days would not count if it were bought again

    @property
    def price(self) -> Decimal | None:
        """Return the middle of the market, in base currency; None where price or rate is missing."""
        return None if self.quote is None or self.rate is None else self.quote.mid * self.rate

    def cost(self, side: str, quantity: Decimal) -> Decimal:
        """Return what trading is expected to take: half the spread and the fees of the cheapest broker."""
        if self.quote is None or self.rate is None or not quantity:
            return ZERO
        price = self.quote.side_price(side)
        fees = [
            sum((c.amount for c in charge(
                items, side=side, quantity=quantity, price=price, currency=self.instrument.currency,
                base_currency=self.instrument.base_currency,
            ) if c.currency == self.instrument.currency), ZERO)
            for items in self.schedules
        ]  # fmt: skip
        return (abs(price - self.quote.mid) * quantity + min(fees, default=ZERO)) * self.rate


@dataclass(frozen=True, slots=True)
class Rules:
    """How a rebalance is done. Fractions are of equity, amounts in base currency; None binds nothing."""

    method: str = FULL
    band: Band | None = None
    min_trade: Decimal = ZERO
    cash_buffer: Decimal = ZERO
    turnover_cap: Decimal | None = None
    nearest_lot: bool = False
    may_short: bool = False
    limit_bps: Decimal | None = None
    tax_aware: bool = False
    short_term_tax: Decimal = ZERO
    long_term_tax: Decimal = ZERO
    harvest: Decimal | None = None  # the loss of a name from which on it is taken
    wash_guard: bool = True
    substitutes: Mapping[int, int] = field(default_factory=dict)  # what to hold in place of a name whose loss is taken


@dataclass(frozen=True, slots=True)
class LotSale:
    """A part of a lot that a sale closes, what it gains, and how much of a loss would be washed."""

    id: UUID
    quantity: Decimal
    gain: Decimal
    tax: Decimal
    washed: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Trade:
    """One order to be: its side, whole lots, and what it does. `price` is the side of the market it meets, in its own currency."""

    instrument_id: int
    side: str
    quantity: Decimal
    price: Decimal
    limit_price: Decimal | None
    value: Decimal
    cost: Decimal
    tax: Decimal
    sales: tuple[LotSale, ...] = ()

    @property
    def signed(self) -> Decimal:
        """Return the quantity, above zero for a buy."""
        return self.quantity if self.side == "buy" else -self.quantity


@dataclass(slots=True)
class Plan:
    """What one account is to trade, and how it stands before and after; `skipped` tells why a name is left as it is."""

    equity: Decimal
    cash_before: Decimal
    cash_after: Decimal = ZERO
    trades: list[Trade] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)
    before: dict[int, Decimal] = field(default_factory=dict)
    target: dict[int, Decimal] = field(default_factory=dict)
    after: dict[int, Decimal] = field(default_factory=dict)
    breached: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def cost(self) -> Decimal:
        """Return what all trades are expected to cost."""
        return sum((t.cost for t in self.trades), ZERO)

    @property
    def tax(self) -> Decimal:
        """Return the tax on what the sales gain, less what losses save."""
        return sum((t.tax for t in self.trades), ZERO)

    @property
    def turnover(self) -> Decimal:
        """Return what is traded as a part of equity."""
        return EXACT.divide(sum((t.value for t in self.trades), ZERO), self.equity) if self.equity else ZERO


class NoPrice(Exception):
    """What is held has no price or rate, so that equity is unknown; names them."""

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(", ".join(symbols))
        self.symbols = list(symbols)


Weigh = Callable[[Mapping[int, Decimal], Mapping[int, Decimal], Decimal], dict[int, Decimal]]
"""Chooses weights to aim for, from those held, those wanted, and equity: what an optimiser does."""


def plan(
    assets: Mapping[int, Asset],
    cash: Decimal,
    wanted: Mapping[int, Decimal],
    rules: Rules,
    *,
    targets: Targets | None = None,
    weigh: Weigh | None = None,
    cash_flow: Decimal | None = None,
) -> Plan:
    """Return the trades that bring an account toward its targets, by its rules.

    `wanted` are weights by instrument; what is held and not wanted is sold. `targets` tells the groups whose drift counts with
    bands. `cash_flow` is what a cash-flow rebalance spends or raises; None: what lies above, or lacks below, the cash wanted.
    Raises `NoPrice`.
    """
    made = _Planner(assets, cash, wanted, rules, targets, weigh, cash_flow)
    first = made.run(ZERO)
    # what trading costs is not there to be invested: the second run knows it
    return made.run(first.cost) if first.trades else first


class _Planner:
    def __init__(
        self,
        assets: Mapping[int, Asset],
        cash: Decimal,
        wanted: Mapping[int, Decimal],
        rules: Rules,
        targets: Targets | None,
        weigh: Weigh | None,
        cash_flow: Decimal | None,
    ) -> None:
        self.assets, self.cash, self.rules, self.targets, self.weigh = assets, cash, rules, targets, weigh
        unpriced = sorted(a.instrument.symbol for a in assets.values() if a.quantity and a.price is None)
        if unpriced:
            raise NoPrice(unpriced)
        self.price = {i: a.price for i, a in assets.items() if a.price}
        self.equity = cash + sum((a.quantity * self.price[i] for i, a in assets.items() if a.quantity), ZERO)
        self.wanted = {i: wanted.get(i, ZERO) for i in assets}
        self.cash_flow = cash_flow

    def run(self, cost: Decimal) -> Plan:
        found = Plan(self.equity, self.cash)
        if self.equity <= 0:
            found.notes.append("There is no equity to invest.")
            return found
        self.cost, self.exact = cost, dict[int, Decimal]()
        found.before = {i: self._weight(i, a.quantity) for i, a in self.assets.items()}
        found.target = self._attainable(found)
        aims = self._aims(found)
        deltas = self._deltas(found, aims)
        self._drop(found, deltas)
        self._cap(found, deltas)
        self._afford(found, deltas)
        if self.rules.nearest_lot:
            self._fill_up(found, deltas)
        found.trades = [t for i, d in deltas.items() if d for t in self._trades(self.assets[i], d)]
        found.trades.sort(key=lambda t: (t.side == "buy", self.assets[t.instrument_id].instrument.symbol))
        self._close(found)
        return found

    def _weight(self, i: int, quantity: Decimal) -> Decimal:
        return EXACT.divide(quantity * self.price[i], self.equity).quantize(PLACES) if quantity else ZERO

    # ------------------------------------------------ what to aim for

    def _attainable(self, found: Plan) -> dict[int, Decimal]:
        """Return the targets, less what can't be had: a name that may not be traded stays as it is, and where that leaves too
        little for the others they share what is left in proportion."""
        target, frozen = dict(self.wanted), dict[int, Decimal]()
        for i, asset in self.assets.items():
            if target[i] < 0 and not self.rules.may_short:
                target[i] = ZERO
                if not asset.quantity:
                    found.skipped[i] = NO_SHORTS
            why = RESTRICTED if asset.restricted else NO_QUOTE if asset.quote is None else ""
            if why := why or (NO_RATE if asset.rate is None else ""):
                if target[i] or asset.quantity:
                    found.skipped[i] = why
                target[i] = frozen[i] = self._held(i)
        if self.rules.harvest is not None:
            self._harvest(found, target)
        longs = sum((w for i, w in target.items() if w > 0 and i not in frozen), ZERO)
        cash = self.targets.cash if self.targets else ZERO
        room = ONE - cash - sum((w for w in frozen.values() if w > 0), ZERO)
        asked = sum((w for w in self.wanted.values() if w > 0), ZERO) + cash
        if frozen and longs > max(room, ZERO) and asked <= ONE:
            factor = EXACT.divide(max(room, ZERO), longs)
            target = {i: w if i in frozen or w <= 0 else EXACT.multiply(w, factor) for i, w in target.items()}
        return {i: w.quantize(PLACES, context=EXACT) for i, w in target.items()}

    def _held(self, i: int) -> Decimal:
        return self._weight(i, self.assets[i].quantity) if i in self.price else ZERO

    def _harvest(self, found: Plan, target: dict[int, Decimal]) -> None:
        """Aim to sell the lots of names that lost enough, and to hold their substitutes meanwhile; cash without one."""
        for i, asset in self.assets.items():
            if i in found.skipped or not asset.lots or i not in self.price:
                continue
            losing = [
                x for x in asset.lots if x.unit_cost > self._bid(asset) and not (x.washes and self.rules.wash_guard)
            ]
            loss = sum(((x.unit_cost - self._bid(asset)) * x.quantity for x in losing), ZERO) * (asset.rate or ZERO)
            if not losing or loss < (self.rules.harvest or ZERO):
                continue
            kept = asset.quantity - sum((x.quantity for x in losing), ZERO)
            moved = max(target[i] - self._weight(i, kept), ZERO)
            if not moved and target[i] <= self._weight(i, kept):
                continue  # what is sold anyway takes the loss
            target[i], self.exact[i] = self._weight(i, kept), kept
            found.notes.append(f"{asset.instrument.symbol}: a loss of {money(loss).normalize():f} is taken.")
            other = self.rules.substitutes.get(i)
            if other in target:
                target[other] += moved

    @staticmethod
    def _bid(asset: Asset) -> Decimal:
        return asset.quote.bid if asset.quote else ZERO

    def _aims(self, found: Plan) -> dict[int, Decimal]:
        """Return the weights to trade to, of the names that are to be traded."""
        method = self.rules.method
        tradable = {i: w for i, w in found.target.items() if i in self.price and not self.assets[i].restricted}
        if method == BANDS or self.rules.band:
            found.breached = sorted(self._breached(found))
        if self.rules.band and not found.breached and method != CASH_FLOW:
            found.notes.append("Everything is inside of its band.")
            return {i: w for i, w in tradable.items() if i in self.exact}
        if method == BANDS:
            for i in tradable.keys() - set(found.breached):
                if found.before[i] != found.target[i]:
                    found.skipped.setdefault(i, INSIDE_BAND)
            return {i: w for i, w in tradable.items() if i in found.breached or i in self.exact}
        if method == CASH_FLOW:
            return self._flow(found, tradable)
        if method == OPTIMISE and self.weigh is not None:
            chosen = self.weigh({i: found.before[i] for i in tradable}, tradable, self.equity)
            return {i: chosen.get(i, tradable[i]) for i in tradable}
        return tradable

    def _breached(self, found: Plan) -> set[int]:
        """Return the names outside of their band, and those of groups that are outside as a whole."""
        out = {i for i in found.before if self._band(found.target[i]).breached(found.target[i], found.before[i])}
        groups: dict[str, list[int]] = {}
        for i, asset in self.assets.items():
            for group in (self.targets.groups if self.targets else {}).get(asset.instrument.symbol, ()):
                groups.setdefault(group, []).append(i)
        for members in groups.values():
            target = sum((found.target[i] for i in members), ZERO)
            if self._band(target).breached(target, sum((found.before[i] for i in members), ZERO)):
                out.update(members)
        return out

    def _band(self, target: Decimal) -> Band:
        """Return the band of a target: the 5/25 rule where none was given."""
        return self.rules.band or five_twenty_five(target)

    def _flow(self, found: Plan, tradable: Mapping[int, Decimal]) -> dict[int, Decimal]:
        """Return weights that spend or raise cash alone: what is short is bought, or what is over sold, never both."""
        flow = self.cash_flow
        if flow is None:
            kept = (self.targets.cash if self.targets else ZERO) + self.rules.cash_buffer
            flow = self.cash - kept * self.equity
        names = [i for i, w in sorted(tradable.items()) if w > 0 or self.assets[i].quantity > 0]
        whole = sum((tradable[i] for i in names if tradable[i] > 0), ZERO)
        if not whole or not flow:
            return {}
        values = [self.assets[i].quantity * self.price[i] for i in names]
        parts = [EXACT.divide(max(tradable[i], ZERO), whole) for i in names]
        aims = {}
        for i, amount in zip(names, flow_to_targets(values, parts, flow), strict=True):
            if not amount:
                continue
            held, lot = self.assets[i].quantity, self.assets[i].instrument.lot_size
            # in quantities at once: a weight in between is rounded, and might lose a lot
            self.exact[i] = held + towards_zero(EXACT.divide(amount, self.price[i]), lot)
            aims[i] = found.before[i] + EXACT.divide(amount, self.equity)
        return aims

    # ------------------------------------------------ how much of it

    def _deltas(self, found: Plan, aims: Mapping[int, Decimal]) -> dict[int, Decimal]:
        deltas = {}
        for i, weight in sorted(aims.items()):
            asset = self.assets[i]
            final = target_quantity(
                equity=self.equity, weight=weight, price=self.price[i], lot=asset.instrument.lot_size, may_short=self.rules.may_short,
                buffer=ZERO if self.rules.method == CASH_FLOW else self.rules.cash_buffer, fee=self.cost,
            )  # fmt: skip
            if final is None:
                continue
            if i in self.exact:
                final = self.exact[i]
            elif weight == found.before[i]:
                final = asset.quantity
            delta = towards_zero(final - asset.quantity, asset.instrument.lot_size)
            if self.rules.method == CASH_FLOW and delta and (delta > 0) != (weight > found.before[i]):
                delta = ZERO
            if delta:
                deltas[i] = delta
            elif abs(weight - found.before[i]) > PLACES:
                found.skipped.setdefault(i, LESS_THAN_A_LOT)
        return deltas

    def _drop(self, found: Plan, deltas: dict[int, Decimal]) -> None:
        for i, delta in list(deltas.items()):
            if abs(delta) * self.price[i] < self.rules.min_trade:
                found.skipped[i] = BELOW_MINIMUM
                del deltas[i]
            elif delta > 0 and self.rules.wash_guard and self.assets[i].buying_washes:
                found.skipped[i] = WASH_SALE
                del deltas[i]

    def _cap(self, found: Plan, deltas: dict[int, Decimal]) -> None:
        """Bring all trades down alike where they would turn over more than is allowed."""
        cap = self.rules.turnover_cap
        total = sum((abs(d) * self.price[i] for i, d in deltas.items()), ZERO)
        if cap is None or total <= cap * self.equity:
            return
        found.notes.append("The turnover cap binds.")
        self._shrink(found, deltas, list(deltas), EXACT.divide(cap * self.equity, total), CAPPED)

    def _shrink(self, found: Plan, deltas: dict[int, Decimal], names: list[int], factor: Decimal, why: str) -> None:
        for i in names:
            deltas[i] = towards_zero(deltas[i] * factor, self.assets[i].instrument.lot_size)
            if not deltas[i] or abs(deltas[i]) * self.price[i] < self.rules.min_trade:
                found.skipped[i] = why if not deltas[i] else BELOW_MINIMUM
                del deltas[i]

    def _afford(self, found: Plan, deltas: dict[int, Decimal]) -> None:
        """Bring buys down alike to what cash and sales pay for; a portfolio that aims to borrow may do so as far as it aims."""
        left = self._cash_after(deltas) - self._floor(found)
        buys = [i for i, d in deltas.items() if d > 0]
        total = sum((self._paid(i, deltas[i]) for i in buys), ZERO)
        if left >= 0 or not total:
            return
        found.notes.append("Buys are brought down to the cash that is there.")
        self._shrink(found, deltas, buys, EXACT.divide(max(total + left, ZERO), total), "no_cash")

    def _floor(self, found: Plan) -> Decimal:
        aimed = sum(found.target.values(), ZERO)
        borrowed = self.equity * (ONE - aimed) if aimed > ONE else ZERO
        held = min(self.cash, ZERO)
        return min(borrowed, held if self.rules.method in (CASH_FLOW, BANDS) else ZERO)

    def _paid(self, i: int, delta: Decimal) -> Decimal:
        """Return the cash that a trade takes, below zero for what it brings."""
        side = "buy" if delta > 0 else "sell"
        return delta * self.price[i] + self.assets[i].cost(side, abs(delta))

    def _cash_after(self, deltas: Mapping[int, Decimal]) -> Decimal:
        return self.cash - sum((self._paid(i, d) for i, d in deltas.items()), ZERO)

    def _fill_up(self, found: Plan, deltas: dict[int, Decimal]) -> None:
        """Buy one lot more of names that lie more than half a lot below their target, the furthest first, while cash lasts."""
        kept = self.rules.cash_buffer + (self.targets.cash if self.targets else ZERO)
        left = self._cash_after(deltas) - kept * self.equity
        short = []
        for i, delta in deltas.items():
            asset = self.assets[i]
            exact = EXACT.divide(self.equity * (ONE - self.rules.cash_buffer) * found.target[i], self.price[i])
            part = EXACT.divide(exact - asset.quantity - delta, asset.instrument.lot_size)
            if Decimal("0.5") < part < 1:
                short.append((-part, i))
        for _, i in sorted(short):
            lot = self.assets[i].instrument.lot_size
            if self._paid(i, lot) <= left and deltas[i] + lot:
                left -= self._paid(i, lot)
                deltas[i] += lot

    # ------------------------------------------------ the orders

    def _trades(self, asset: Asset, delta: Decimal) -> list[Trade]:
        """Return the orders of a change: two where it goes through zero, as a sale and a short sale are not the same."""
        held = asset.quantity
        if delta > 0:
            cover = min(delta, -held) if held < 0 else ZERO
            return [self._trade(asset, "buy", q) for q in (cover, delta - cover) if q]
        close = min(-delta, held) if held > 0 else ZERO
        close = towards_zero(close, asset.instrument.lot_size)
        return [self._trade(asset, side, q) for side, q in (("sell", close), ("sell_short", -delta - close)) if q]

    def _trade(self, asset: Asset, side: str, quantity: Decimal) -> Trade:
        assert asset.quote is not None  # noqa: S101 - what has no quote is not traded
        assert asset.rate is not None  # noqa: S101 - nor what has no rate
        i, price = asset.instrument.id, asset.quote.side_price(side)
        sales = choose_lots(asset.lots, quantity, price, self.rules) if side == "sell" and self.rules.tax_aware else ()
        return Trade(
            i, side, quantity, price, _limit(asset, side, self.rules.limit_bps), quantity * self.price[i],
            money(asset.cost("buy" if side == "buy" else "sell", quantity)),
            money(sum((s.tax for s in sales), ZERO) * asset.rate), sales,
        )  # fmt: skip

    def _close(self, found: Plan) -> None:
        moved: dict[int, Decimal] = {}
        for trade in found.trades:
            moved[trade.instrument_id] = moved.get(trade.instrument_id, ZERO) + trade.signed
        found.after = {i: self._weight(i, a.quantity + moved.get(i, ZERO)) for i, a in self.assets.items()}
        found.cash_after = money(self._cash_after(moved))
        for i in moved:
            found.skipped.pop(i, None)


def _limit(asset: Asset, side: str, bps: Decimal | None) -> Decimal | None:
    """Return the worst price to trade at, on the tick grid inside of the distance allowed from the touch."""
    if bps is None or asset.quote is None:
        return None
    tick = asset.instrument.tick_size
    through = asset.quote.side_price(side) * (ONE + bps * BPS if side == "buy" else ONE - bps * BPS)
    ticks = EXACT.divide(through, tick).to_integral_value(ROUND_FLOOR if side == "buy" else ROUND_CEILING)
    return max(ticks * tick, tick)


def choose_lots(
    lots: Sequence[TaxLot], quantity: Decimal, price: Decimal, rules: Rules
) -> tuple[LotSale, ...]:  # fmt: skip
    """Return the parts of lots to sell that cost least tax a unit: losses that count first, the largest of them foremost.

    A loss that a wash sale takes away saves nothing, so such a lot is left to the last of those without gains.
    """
    taxed = sorted(((_tax(lot, price, rules), i) for i, lot in enumerate(lots)), key=lambda t: (t[0], t[1]))
    found, left = [], quantity
    for tax, i in taxed:
        lot = lots[i]
        part = min(lot.quantity, left)
        if part <= 0:
            break
        gain = (price - lot.unit_cost) * part
        washed = -gain if gain < 0 and lot.washes else ZERO
        found.append(LotSale(lot.id, part, money(gain), money(tax * part), money(washed)))
        left -= part
    return tuple(found)


def _tax(lot: TaxLot, price: Decimal, rules: Rules) -> Decimal:
    """Return the tax on one unit; below zero what its loss saves."""
    gain = price - lot.unit_cost
    if gain < 0 and lot.washes:
        return ZERO
    return gain * (rules.long_term_tax if lot.long_term else rules.short_term_tax)


def brought_down(
    quantities: Mapping[Any, tuple[Decimal, Decimal]], cash: Decimal, price: Mapping[Any, Decimal]
) -> dict[Any, Decimal]:
    """Return quantities to buy, given with their lots, brought down alike to what cash pays for at these prices."""
    total = sum((q * price[k] for k, (q, _) in quantities.items()), ZERO)
    if total <= cash:
        return {k: q for k, (q, _) in quantities.items()}
    factor = EXACT.divide(max(cash, ZERO), total)
    return {k: towards_zero(q * factor, lot) for k, (q, lot) in quantities.items()}


def without_taxes(rules: Rules) -> Rules:
    """Return the rules for an account that keeps no lots apart."""
    return replace(rules, tax_aware=False, harvest=None)
