"""From a kind of limit to the check that it makes of an order: what is measured, and against which of several limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel.decimals import BOUND, ZERO
from risk.domain import bounds, checks
from risk.domain.exposures import Exposures, Holding
from risk.domain.intents import Intent
from risk.domain.limits import LimitRef, tightest
from risk.domain.pacing import PaceKey

if TYPE_CHECKING:
    from risk.domain.gate import Gate

Measure = Callable[["Gate", Intent, Decimal, Sequence[LimitRef]], checks.Check]
"""Takes the gate, the order, the units that may still be filled, and the limits of the kind that bind the order."""


def _order_quantity(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit = tightest(limits)
    return checks.OrderQuantity(intent.quantity, limit.value, str(limit.scope))


def _order_quantity_min(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit = tightest(limits)
    return bounds.OrderQuantityMin(intent.quantity, limit.value, str(limit.scope))


def _order_notional(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    price = value_price(intent, gate.facts.quotes[intent.instrument.id])
    value = intent.quantity * price
    found = []
    for limit in limits:
        currency = limit.currency or intent.base_currency
        amount = gate.convert(value, intent.instrument.currency, currency)
        found.append(checks.OrderNotional(price, amount, limit.value, currency, str(limit.scope)))
    return next((c for c in found if c.notional is None), None) or max(found, key=lambda c: _use(c.notional, c.limit))


def _order_notional_min(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    value = intent.quantity * value_price(intent, gate.facts.quotes[intent.instrument.id])
    found = []
    for limit in limits:
        currency = limit.currency or intent.base_currency
        amount = gate.convert(value, intent.instrument.currency, currency)
        found.append(bounds.OrderNotionalMin(amount, limit.value, currency, str(limit.scope)))
    return next((c for c in found if c.notional is None), None) or min(found, key=lambda c: _use(c.notional, c.limit))


def _price_collar(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit, reference = tightest(limits), touch(intent, gate.facts.quotes[intent.instrument.id])
    price = _price(intent)
    return checks.PriceCollar(intent.side == "buy", price, reference, limit.value, str(limit.scope))


def _price_collar_ticks(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit, reference = tightest(limits), touch(intent, gate.facts.quotes[intent.instrument.id])
    return bounds.PriceCollarTicks(
        intent.side == "buy", _price(intent), reference, intent.instrument.tick_size, limit.value, str(limit.scope)
    )


def _spread(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit, quote = tightest(limits), gate.facts.quotes[intent.instrument.id]
    return bounds.SpreadWidth(quote.bid, quote.ask, limit.value, str(limit.scope))


def _volume_recent(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit, traded = tightest(limits), gate.facts.traded.get(intent.instrument.id)
    return bounds.VolumeRecent(intent.quantity, traded, limit.value, str(limit.scope))


def _volume_daily(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit, traded = tightest(limits), gate.facts.traded_daily.get(intent.instrument.id)
    return bounds.VolumeDaily(intent.quantity, traded, limit.value, str(limit.scope))


def _position(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    held, limit = gate.holding(intent), tightest(limits)
    is_buy = intent.side == "buy"
    working = held.buying if is_buy else held.selling
    return checks.PositionLimit(is_buy, held.quantity, working, quantity, limit.value, str(limit.scope))


def _position_long(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    held, limit = gate.holding(intent), tightest(limits)
    return bounds.PositionLong(held.quantity + held.buying + quantity, limit.value, "", str(limit.scope))


def _position_short(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    held, limit = gate.holding(intent), tightest(limits)
    return bounds.PositionShort(held.selling - held.quantity + quantity, limit.value, "", str(limit.scope))


def _position_gross(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    held, limit = gate.holding(intent), tightest(limits)
    units = abs(held.quantity) + held.buying + held.selling + quantity
    return bounds.PositionGross(units, limit.value, "", str(limit.scope))


def _gross_exposure(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    worth = gate.exposures(intent).total(intent.instrument.id, _with(gate, intent, quantity))
    found = []
    for limit in limits:
        currency = limit.currency or intent.base_currency
        gross = None if worth is None else gate.convert(worth.gross, intent.base_currency, currency)
        found.append(checks.GrossExposure(gross, limit.value, currency, str(limit.scope)))
    return next((c for c in found if c.gross is None), None) or max(found, key=lambda c: _use(c.gross, c.limit))


def _net_exposure(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    worth = gate.exposures(intent).total(intent.instrument.id, _with(gate, intent, quantity))
    net = None if worth is None else worth.long if intent.side == "buy" else worth.short
    return _in_money(bounds.NetExposure, gate, intent, net, limits)


def _daily_loss(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    profit = gate.profit(intent.account_id, intent.base_currency).day
    return _in_money(bounds.DailyLoss, gate, intent, None if profit is None else -profit, limits)


def _drawdown(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    profit = gate.profit(intent.account_id, intent.base_currency).total
    peak = gate.facts.peaks.get(intent.account_id)
    below = None if profit is None else max(ZERO, (profit if peak is None else peak) - profit)
    return _in_money(bounds.Drawdown, gate, intent, below, limits)


def _in_money(
    kind: type[bounds.Ceiling], gate: Gate, intent: Intent, amount: Decimal | None, limits: Sequence[LimitRef]
) -> checks.Check:
    found = []
    for limit in limits:
        currency = limit.currency or intent.base_currency
        figure = None if amount is None else gate.convert(amount, intent.base_currency, currency)
        found.append(kind(figure, limit.value, currency, str(limit.scope)))
    return _fullest(found)


def _leverage(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    worth = gate.exposures(intent).total(intent.instrument.id, _with(gate, intent, quantity))
    limit = tightest(limits)
    equity = gate.equity(intent.account_id, intent.base_currency)
    return bounds.Leverage(None if worth is None else worth.gross, equity, limit.value, "", str(limit.scope))


def _concentration(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    gross = _gross_of(gate, intent, quantity, lambda i: i.id == intent.instrument.id)
    return _share(bounds.Concentration, gate, intent, gross, intent.instrument.symbol, limits)


def _concentration_sector(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    sector = intent.instrument.sector
    gross = _gross_of(gate, intent, quantity, lambda i: i.sector == sector)
    return _share(bounds.ConcentrationSector, gate, intent, gross, sector or "no sector", limits)


def _concentration_class(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    asset_class = intent.instrument.asset_class
    gross = _gross_of(gate, intent, quantity, lambda i: i.asset_class == asset_class)
    return _share(bounds.ConcentrationClass, gate, intent, gross, asset_class, limits)


def _concentration_strategy(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    held = gate.facts.by_strategy.get((intent.account_id, intent.strategy_id or 0), {})
    book = Exposures(held.items(), lambda pk, units: gate.value(pk, units, intent.base_currency))
    mine = held.get(intent.instrument.id, Holding()).with_order(intent.side, quantity, ZERO)
    worth = book.total(intent.instrument.id, mine)
    gross = None if worth is None else worth.gross
    return _share(bounds.ConcentrationStrategy, gate, intent, gross, intent.strategy_code or "no strategy", limits)


def _gross_of(
    gate: Gate, intent: Intent, quantity: Decimal, belongs: Callable[[InstrumentRef], bool]
) -> Decimal | None:
    holding = _with(gate, intent, quantity)
    return gate.exposures(intent).gross_where(gate.facts.instruments, belongs, intent.instrument.id, holding)


def _share(
    kind: type[bounds.Share], gate: Gate, intent: Intent, gross: Decimal | None, of: str, limits: Sequence[LimitRef]
) -> checks.Check:
    limit = tightest(limits)
    return kind(gross, gate.equity(intent.account_id, intent.base_currency), limit.value, of, str(limit.scope))


def _open_orders(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    found = [
        bounds.OpenOrders(Decimal(gate.open_orders(intent, limit) + 1), limit.value, "", str(limit.scope))
        for limit in limits
    ]
    return _fullest(found)


def _order_rate(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    return _fullest([bounds.OrderRate(gate.paced_level(intent, x) + 1, x.value, "", str(x.scope)) for x in limits])


def _message_rate(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    return _fullest([bounds.MessageRate(gate.paced_level(intent, x) + 1, x.value, "", str(x.scope)) for x in limits])


def _replace_rate(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    return _fullest([bounds.ReplaceRate(gate.paced_level(intent, x) + 1, x.value, "", str(x.scope)) for x in limits])


def _cutoff(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit, auction = tightest(limits), "opening" if intent.time_in_force == "opg" else "close"
    left = gate.facts.auctions.get((intent.instrument.id, intent.time_in_force))
    return bounds.AuctionCutoff(auction, left, limit.value, str(limit.scope))


def _automated_runs(gate: Gate, intent: Intent, quantity: Decimal, limits: Sequence[LimitRef]) -> checks.Check:
    limit = tightest(limits)
    return bounds.AutomatedRuns(gate.paced_level(intent, limit) + 1, limit.value, "", str(limit.scope))


def _fullest(found: Sequence[bounds.Ceiling]) -> bounds.Ceiling:
    """Return the check that can't be valued, else the one whose limit is used the most."""
    return next((c for c in found if c.figure is None), None) or max(found, key=lambda c: _use(c.figure, c.limit))


def _use(figure: Decimal | None, limit: Decimal) -> Decimal:
    return (figure or ZERO) / limit if limit else BOUND * ((figure or ZERO) > 0)


def _with(gate: Gate, intent: Intent, quantity: Decimal) -> Holding:
    return gate.holding(intent).with_order(intent.side, quantity, ZERO)


def _price(intent: Intent) -> Decimal:
    assert intent.limit_price is not None  # noqa: S101 - `applies` lets through what has one
    return intent.limit_price


MEASURES: dict[str, Measure] = {
    "order_quantity": _order_quantity,
    "order_quantity_min": _order_quantity_min,
    "order_notional": _order_notional,
    "order_notional_min": _order_notional_min,
    "price_collar": _price_collar,
    "price_collar_ticks": _price_collar_ticks,
    "volume_recent": _volume_recent,
    "volume_daily": _volume_daily,
    "spread": _spread,
    "position": _position,
    "position_long": _position_long,
    "position_short": _position_short,
    "position_gross": _position_gross,
    "gross_exposure": _gross_exposure,
    "net_exposure": _net_exposure,
    "leverage": _leverage,
    "concentration": _concentration,
    "concentration_sector": _concentration_sector,
    "concentration_class": _concentration_class,
    "concentration_strategy": _concentration_strategy,
    "open_orders": _open_orders,
    "order_rate": _order_rate,
    "replace_rate": _replace_rate,
    "message_rate": _message_rate,
    "opening_cutoff": _cutoff,
    "closing_cutoff": _cutoff,
    "automated_runs": _automated_runs,
    "daily_loss": _daily_loss,
    "drawdown": _drawdown,
}
"""By kind of limit, in the order in which they judge; all but the first may rely on a usable quote."""

_RISING = frozenset(
    {
        "position_gross", "gross_exposure", "net_exposure", "leverage", "concentration", "concentration_sector",
        "concentration_class", "concentration_strategy", "daily_loss", "drawdown",
    }
)  # fmt: skip
"""Kinds that an order passes which only brings a position nearer to zero."""

_NEW_ONLY = frozenset({"open_orders", "order_rate", "automated_runs", "order_quantity_min", "order_notional_min"})


CUTOFFS = {"opening_cutoff": "opg", "closing_cutoff": "cls"}
"""Kinds that bind orders for an auction, by their time in force."""

PACED = frozenset({"order_rate", "replace_rate", "message_rate", "automated_runs"})
"""Kinds that count what was let through, in buckets that are stored."""


def applies(kind: str, intent: Intent, *, reduces: bool, is_new: bool) -> bool:
    """Tell whether limits of a kind have anything to say about an order."""
    if kind in _RISING:
        return not reduces
    if kind in _NEW_ONLY and not is_new:
        return False
    if kind == "replace_rate":
        return not is_new
    if kind in CUTOFFS:
        return is_new and intent.time_in_force == CUTOFFS[kind]
    if kind in ("price_collar", "price_collar_ticks"):
        return intent.limit_price is not None
    if kind in ("position_long", "position_short"):
        return (intent.side == "buy") == (kind == "position_long")
    if kind in ("automated_runs", "concentration_strategy"):
        return bool(intent.strategy_code) and (intent.automated or kind != "automated_runs")
    return kind != "concentration_sector" or bool(intent.instrument.sector)


def pace_key(intent: Intent, limit: LimitRef) -> PaceKey:
    """Return which bucket an order goes into: the account's for the limit's scope; runs are counted by strategy."""
    if limit.kind == "automated_runs":
        return intent.account_id, limit.kind, "strategy", intent.strategy_code
    return intent.account_id, limit.kind, limit.scope.kind, limit.scope.key


def value_price(intent: Intent, quote: QuoteRef) -> Decimal:
    """Return the price that an order is valued at: the highest it is expected to trade at.

    A buy: its limit price, else the ask or the stop price if higher. A sale: the bid, or its own price if higher.
    """
    if intent.side == "buy":
        return intent.limit_price or max(quote.ask, intent.stop_price or ZERO)
    return max(quote.bid, intent.limit_price or intent.stop_price or ZERO)


def touch(intent: Intent, quote: QuoteRef) -> Decimal:
    """Return the market's price for the side, or the stop price where the market must first go further."""
    if intent.side == "buy":
        return max(quote.ask, intent.stop_price or ZERO)
    return min(quote.bid, intent.stop_price or quote.bid)
