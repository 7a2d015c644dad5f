"""What a person or a program may ask for: parsed once, the same for every way in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid5

from oms.kernel import decimals, json
from oms.kernel.errors import Invalid, InvalidFields
from orders.domain.algos import AlgoTerms, parse_algo
from orders.domain.groups import Policy
from orders.domain.sizing import SizeBy, parse_size_by
from orders.domain.triggers import AUCTIONS, TOUCHED, TRAILING
from risk.domain.rules import SELF_TRADE_MODES

SIDES = ("buy", "sell", "sell_short")
ORDER_TYPES = (
    "market", "limit", "stop", "stop_limit", "trailing_stop", "trailing_stop_limit", "market_if_touched", "limit_if_touched",
)  # fmt: skip
TIMES_IN_FORCE = ("day", "gtc", "ioc", "fok", "gtd", "opg", "cls")
NEEDS_LIMIT = frozenset({"limit", "stop_limit", "trailing_stop_limit", "limit_if_touched"})
NEEDS_STOP = frozenset({"stop", "stop_limit", "market_if_touched", "limit_if_touched"})
AUCTION_TYPES = frozenset({"market", "limit"})
IMMEDIATE = frozenset({"ioc", "fok"})
GROUP_KINDS = ("oco", "oto")
POLICIES = tuple(p.value for p in Policy)
PERCENT_BELOW = Decimal(100)
YEARS = timedelta(days=730)
_FIELDS = frozenset(
    [
        "client_order_id",
        "account",
        "symbol",
        "side",
        "quantity",
        "size_by",
        "order_type",
        "limit_price",
        "stop_price",
        "time_in_force",
        "expire_at",
        "trail_amount",
        "trail_percent",
        "good_after",
        "display_quantity",
        "min_quantity",
        "algo",
        "do_not_reduce",
        "broker",
        "strategy",
        "note",
        "lots",
        "reduce_only",
        "self_trade_prevention",
        "take_profit",
        "stop_loss",
        "group",
        "partial_fills",
    ]
)
LOTS_MAX = 100
"""How many lots one ticket may choose."""
ID = re.compile(r"[A-Za-z0-9_.:\-]{1,64}", re.ASCII)
SYMBOL = re.compile(r"[A-Za-z0-9_.:/\-]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StopLoss:
    """Where an exit ends the loss: a stop order, or a stop-limit order if it has a limit price."""

    stop_price: Decimal
    limit_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class GroupRef:
    """The group that an order belongs to, by the client's own name for it."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """One order as asked for. Codes are not looked up yet; numbers are exact and positive.

    With `size_by` the quantity is zero until the desk has worked it out, at the moment it places the order.
    """

    account: str
    symbol: str
    side: str
    quantity: Decimal
    order_type: str = "market"
    client_order_id: str = ""
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = "day"
    expire_at: datetime | None = None
    broker: str = ""
    strategy: str = ""
    note: str = ""
    size_by: SizeBy | None = None
    lots: tuple[UUID, ...] = ()
    trail_amount: Decimal | None = None
    trail_percent: Decimal | None = None
    good_after: datetime | None = None
    display_quantity: Decimal | None = None
    min_quantity: Decimal | None = None
    reduce_only: bool = False
    self_trade_prevention: str = ""
    algo: AlgoTerms | None = None
    do_not_reduce: bool = False
    take_profit: Decimal | None = None  # its limit price
    stop_loss: StopLoss | None = None
    group: GroupRef | None = None
    partial_fills: str = ""

    @property
    def has_exits(self) -> bool:
        """Tell whether it asks for a bracket, or a part of one."""
        return self.take_profit is not None or self.stop_loss is not None

    def instructions(self) -> dict[str, Any] | None:
        """Return what few orders ask for besides, as it is stored and hashed; None of nothing."""
        told = {
            "trail_amount": decimals.text_or_none(self.trail_amount),
            "trail_percent": decimals.text_or_none(self.trail_percent),
            "good_after": json.rfc3339_or_none(self.good_after),
            "display_quantity": decimals.text_or_none(self.display_quantity),
            "min_quantity": decimals.text_or_none(self.min_quantity),
            "reduce_only": "true" if self.reduce_only else None,
            "self_trade_prevention": self.self_trade_prevention or None,
            "algo": self.algo.as_json() if self.algo else None,
            "do_not_reduce": "true" if self.do_not_reduce else None,
            "take_profit": None if self.take_profit is None else {"limit_price": decimals.text(self.take_profit)},
            "stop_loss": None if self.stop_loss is None else _stop_loss_out(self.stop_loss),
            "group": None if self.group is None else {"kind": self.group.kind, "id": self.group.id},
            "partial_fills": self.partial_fills or None,
        }
        return {name: value for name, value in told.items() if value is not None} or None

    def digest(self) -> bytes:
        """Return a hash of all that was asked, so that a reused id with another body shows."""
        return sha256(
            json.dump_bytes(
                [
                    self.account, self.symbol, self.side, decimals.text(self.quantity), self.order_type,
                    decimals.text_or_none(self.limit_price), decimals.text_or_none(self.stop_price), self.time_in_force,
                    json.rfc3339_or_none(self.expire_at), self.broker, self.strategy, self.note,
                    *([self.size_by.as_json()] if self.size_by else []),
                    *([{"lots": [str(i) for i in self.lots]}] if self.lots else []),
                    *([told] if (told := self.instructions()) else []),
                ]
            )
        ).digest()  # fmt: skip


def _stop_loss_out(loss: StopLoss) -> dict[str, str]:
    told = {"stop_price": loss.stop_price, "limit_price": loss.limit_price}
    return {name: decimals.text(price) for name, price in told.items() if price is not None}


def parse_ticket(raw: object, *, at: datetime) -> Ticket:
    """Return the ticket that a JSON object spells, or raise `InvalidFields` with every fault at once."""
    if not isinstance(raw, Mapping):
        raise InvalidFields([Invalid("not_an_object", "Send one JSON object.", field="")])
    reader = _Reader(raw)
    reader.refuse_unknown(_FIELDS)
    order_type = reader.choice("order_type", ORDER_TYPES)
    time_in_force = reader.choice("time_in_force", TIMES_IN_FORCE, default="day")
    limit_price = reader.positive("limit_price", wanted=order_type in NEEDS_LIMIT, of=order_type)
    stop_price = reader.stop_price(order_type)
    trail_amount, trail_percent = reader.trail(order_type)
    reader.check_time(order_type, time_in_force)
    size_by = reader.size_by()
    algo = reader.algo(order_type, time_in_force, at)
    ticket = Ticket(
        account=reader.pattern("account", ID),
        symbol=reader.pattern("symbol", SYMBOL),
        side=reader.choice("side", SIDES),
        quantity=reader.quantity(),
        order_type=order_type,
        client_order_id=reader.pattern("client_order_id", ID, required=False),
        limit_price=limit_price,
        stop_price=stop_price,
        time_in_force=time_in_force,
        expire_at=reader.future("expire_at", wanted=time_in_force == "gtd", at=at),
        broker=reader.pattern("broker", ID, required=False),
        strategy=reader.pattern("strategy", ID, required=False),
        note=reader.note("note", 200),
        size_by=size_by,
        lots=reader.lots(),
        trail_amount=trail_amount,
        trail_percent=trail_percent,
        good_after=reader.good_after(time_in_force, at=at),
        display_quantity=reader.part("display_quantity", of_types=NEEDS_LIMIT, order_type=order_type),
        min_quantity=reader.part("min_quantity", of_types=frozenset(ORDER_TYPES), order_type=order_type),
        reduce_only=reader.flag("reduce_only"),
        self_trade_prevention=reader.choice("self_trade_prevention", SELF_TRADE_MODES, default=""),
        algo=algo,
        do_not_reduce=reader.do_not_reduce(time_in_force),
        take_profit=reader.take_profit(),
        stop_loss=reader.stop_loss(),
        group=reader.group(time_in_force),
        partial_fills=reader.choice("partial_fills", POLICIES, default=""),
    )
    reader.check_group(ticket)
    if reader.errors:
        raise InvalidFields(reader.errors)
    return ticket


_KEY = re.compile(r"[A-Za-z0-9_.:\-]{1,128}", re.ASCII)
_SIGNAL_FIELDS = frozenset({"strategy", "symbol", "side", "size_by", "account", "key"})
_SIGNALS = UUID("0d6f2f0e-8f55-5c5b-9d0e-5a1c1f7b9a21")


def parse_signal(raw: object) -> Ticket:
    """Return the market order for the day that a strategy's signal asks for, or raise `InvalidFields`.

    Its `client_order_id` follows from strategy and key, so that the same signal makes one order in its account.
    """
    if not isinstance(raw, Mapping):
        raise InvalidFields([Invalid("not_an_object", "Send one JSON object.", field="")])
    reader = _Reader(raw)
    reader.refuse_unknown(_SIGNAL_FIELDS)
    strategy, key = reader.pattern("strategy", ID), reader.pattern("key", _KEY)
    if raw.get("size_by") is None:
        reader.fault("required", "This field is required.", "size_by")
    ticket = Ticket(
        account=reader.pattern("account", ID),
        symbol=reader.pattern("symbol", SYMBOL),
        side=reader.choice("side", SIDES),
        quantity=decimals.ZERO,
        client_order_id=f"signal-{uuid5(_SIGNALS, f'{strategy}:{key}')}",
        strategy=strategy,
        note=f"signal {key}",
        size_by=reader.size_by(),
    )
    if reader.errors:
        raise InvalidFields(reader.errors)
    return ticket


@dataclass(frozen=True, slots=True)
class Terms:
    """What a replace asks for; None leaves a term as it is."""

    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = ""
    expected_version: int | None = None


def parse_terms(raw: object) -> Terms:
    """Return the terms of a replace, or raise `InvalidFields`."""
    if not isinstance(raw, Mapping):
        raise InvalidFields([Invalid("not_an_object", "Send one JSON object.", field="")])
    reader = _Reader(raw)
    reader.refuse_unknown(frozenset({"quantity", "limit_price", "stop_price", "time_in_force", "expected_version"}))
    version = raw.get("expected_version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        reader.fault("not_an_integer", "Send the version as a number.", "expected_version")
    terms = Terms(
        quantity=reader.optional_positive("quantity"),
        limit_price=reader.optional_positive("limit_price"),
        stop_price=reader.optional_positive("stop_price"),
        time_in_force=reader.choice("time_in_force", ("day", "gtc"), default=""),
        expected_version=version if isinstance(version, int) else None,
    )
    if not reader.errors and terms == Terms(expected_version=terms.expected_version):
        reader.fault("nothing_to_change", "Name at least one of quantity, limit_price, stop_price, time_in_force.", "")
    if reader.errors:
        raise InvalidFields(reader.errors)
    return terms


class _Reader:
    """Reads fields of one object and collects what is wrong with them."""

    def __init__(self, raw: Mapping[Any, Any]) -> None:
        self.raw = raw
        self.errors: list[Invalid] = []

    def fault(self, code: str, detail: str, field: str) -> None:
        self.errors.append(Invalid(code, detail, field=field))

    def refuse_unknown(self, known: frozenset[str]) -> None:
        for name in self.raw:
            if name not in known:
                self.fault("unknown_field", "There is no such field.", str(name)[:64])

    def do_not_reduce(self, time_in_force: str) -> bool:
        """Return whether a distribution leaves the prices as they are; only what lasts over its day can say so."""
        value = self.raw.get("do_not_reduce", False)
        if not isinstance(value, bool):
            self.fault("not_a_boolean", "Send true or false.", "do_not_reduce")
        elif value and time_in_force not in ("gtc", "gtd"):
            self.fault("not_allowed", "Only a gtc or gtd order stands over a distribution.", "do_not_reduce")
        return value is True

    def choice(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self.raw.get(name, default)
        if value in ("", None) and default == "":
            return ""
        if value is None:
            self.fault("required", "This field is required.", name)
        elif not isinstance(value, str) or value not in allowed:
            self.fault("not_a_choice", f"Use one of: {', '.join(allowed)}.", name)
        else:
            return value
        return allowed[0]

    def flag(self, name: str) -> bool:
        value = self.raw.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.fault("not_a_boolean", "Send true or false.", name)
        return False

    def pattern(self, name: str, pattern: re.Pattern[str], *, required: bool = True) -> str:
        value = self.raw.get(name)
        if value is None:
            if required:
                self.fault("required", "This field is required.", name)
        elif not isinstance(value, str) or not pattern.fullmatch(value):
            self.fault("not_an_identifier", "Use letters, digits and . _ : - only.", name)
        else:
            return value
        return ""

    def note(self, name: str, length_max: int) -> str:
        value = self.raw.get(name, "")
        if not isinstance(value, str) or len(value) > length_max or any(ord(c) < 32 for c in value):
            self.fault("not_a_note", f"Use plain text of at most {length_max} characters.", name)
            return ""
        return value

    def size_by(self) -> SizeBy | None:
        if self.raw.get("size_by") is None:
            return None
        try:
            return parse_size_by(self.raw["size_by"])
        except InvalidFields as error:
            self.errors += error.errors
            return None

    def algo(self, order_type: str, time_in_force: str, at: datetime) -> AlgoTerms | None:
        """Return how the order is to be worked, None for all of it at once."""
        if self.raw.get("algo") is None:
            return None
        try:
            algo = parse_algo(self.raw["algo"], order_type=order_type, time_in_force=time_in_force, at=at)
        except InvalidFields as error:
            self.errors += error.errors
            return None
        for name in ("good_after", "min_quantity", "group"):
            if self.raw.get(name) is not None:
                self.fault("not_allowed", "A worked order has none; its start stands in algo.start_at.", name)
        shows = self.raw.get("display_quantity") is not None
        if shows and algo.name != "iceberg":
            self.fault("not_allowed", "Only an iceberg shows a part of itself.", "display_quantity")
        elif algo.name == "iceberg" and shows == (algo.slices is not None):
            self.fault("required", "An iceberg needs either display_quantity or algo.slices.", "display_quantity")
        return algo

    def lots(self) -> tuple[UUID, ...]:
        value = self.raw.get("lots")
        if value is None:
            return ()
        if not isinstance(value, list) or not 0 < len(value) <= LOTS_MAX:
            self.fault("not_a_list", f"Send 1 to {LOTS_MAX} ids of lots.", "lots")
            return ()
        found = [_id(v) for v in value]
        if None in found or len(set(found)) != len(found):
            self.fault("not_a_list", "Send ids of lots as UUIDs, each once.", "lots")
            return ()
        if self.raw.get("side") == "sell_short":
            self.fault("not_allowed", "A short sale closes no lots.", "lots")
        return tuple(i for i in found if i is not None)

    def quantity(self) -> Decimal:
        if self.raw.get("size_by") is None:
            return self.positive("quantity", wanted=True, of="order") or decimals.ZERO
        if self.raw.get("quantity") is not None:
            self.fault("not_allowed", "Send either a quantity or size_by.", "quantity")
        return decimals.ZERO

    def optional_positive(self, name: str) -> Decimal | None:
        return None if self.raw.get(name) is None else self._decimal(name)

    def positive(self, name: str, *, wanted: bool, of: str) -> Decimal | None:
        if self.raw.get(name) is None:
            if wanted:
                self.fault("required", f"An order of this type ({of}) needs it.", name)
            return None
        if not wanted:
            self.fault("not_allowed", f"An order of type {of} has none.", name)
            return None
        return self._decimal(name)

    def stop_price(self, order_type: str) -> Decimal | None:
        """Return the price to be reached; a trailing order may name the one that it begins with."""
        if order_type in TRAILING:
            return self.optional_positive("stop_price")
        return self.positive("stop_price", wanted=order_type in NEEDS_STOP, of=order_type)

    def trail(self, order_type: str) -> tuple[Decimal | None, Decimal | None]:
        """Return the distance of a trailing order, as an amount or in percent: one of the two."""
        given = [n for n in ("trail_amount", "trail_percent") if self.raw.get(n) is not None]
        if order_type not in TRAILING:
            for name in given:
                self.fault("not_allowed", f"An order of type {order_type} has none.", name)
            return None, None
        if len(given) != 1:
            self.fault("required", "Send either trail_amount or trail_percent.", "trail_amount")
            return None, None
        value = self._decimal(given[0])
        if given[0] == "trail_percent" and value is not None and value >= PERCENT_BELOW:
            self.fault("out_of_range", "The percent must be below 100.", "trail_percent")
        return (value, None) if given[0] == "trail_amount" else (None, value)

    def take_profit(self) -> Decimal | None:
        """Return the limit price of the exit that takes the profit."""
        inner = self._inner("take_profit", frozenset({"limit_price"}), needs="limit_price")
        return self._price(inner, "take_profit", "limit_price") if inner else None

    def stop_loss(self) -> StopLoss | None:
        """Return the prices of the exit that ends the loss."""
        inner = self._inner("stop_loss", frozenset({"stop_price", "limit_price"}), needs="stop_price")
        if not inner:
            return None
        stop, limit = (self._price(inner, "stop_loss", name) for name in ("stop_price", "limit_price"))
        return None if stop is None else StopLoss(stop, limit)

    def group(self, time_in_force: str) -> GroupRef | None:
        """Return the group an order belongs to."""
        inner = self._inner("group", frozenset({"kind", "id"}), needs="id")
        if not inner:
            return None
        kind, name = inner.get("kind"), inner.get("id")
        if kind not in GROUP_KINDS:
            self.fault("not_a_choice", f"Use one of: {', '.join(GROUP_KINDS)}.", "group.kind")
        elif not isinstance(name, str) or not ID.fullmatch(name):
            self.fault("not_an_identifier", "Use letters, digits and . _ : - only.", "group.id")
        elif kind == "oco" and time_in_force in IMMEDIATE:
            self.fault("not_allowed", "A leg that waits for another can't be immediate.", "time_in_force")
        else:
            return GroupRef(str(kind), name)
        return None

    def _inner(self, name: str, known: frozenset[str], *, needs: str) -> Mapping[str, Any] | None:
        """Return an object inside the ticket, None where there is none or it is none."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.fault("not_an_object", f"Send an object with {needs}.", name)
            return None
        for key in value:
            if key not in known:
                self.fault("unknown_field", "There is no such field.", f"{name}.{str(key)[:64]}")
        if value.get(needs) is None:
            self.fault("required", "This field is required.", f"{name}.{needs}")
            return None
        return value

    def _price(self, inner: Mapping[str, Any], name: str, field: str) -> Decimal | None:
        if inner.get(field) is None:
            return None
        try:
            value = decimals.parse(inner[field], field=f"{name}.{field}")
        except Invalid as error:
            self.errors.append(error)
            return None
        if value <= 0:
            self.fault("not_positive", "The value must be above zero.", f"{name}.{field}")
            return None
        return value

    def check_group(self, ticket: Ticket) -> None:
        """Blame exits on the wrong side of each other or of the entry, and what has no meaning without a group."""
        if ticket.partial_fills and not ticket.has_exits and (ticket.group is None or ticket.group.kind != "oto"):
            self.fault("not_allowed", "Only orders that others wait for have it.", "partial_fills")
        if not ticket.has_exits:
            return
        if ticket.group is not None:
            self.fault("not_allowed", "An order with exits is a group of its own.", "group")
        buys = ticket.side == "buy"
        stop = ticket.stop_loss.stop_price if ticket.stop_loss else None
        entry = ticket.limit_price
        for name, better, worse in (
            ("take_profit", ticket.take_profit, stop),
            ("take_profit", ticket.take_profit, entry),
            ("stop_loss", entry, stop),
        ):
            if better is not None and worse is not None and not (better > worse if buys else better < worse):
                way = "above" if buys else "below"
                self.fault(
                    "wrong_side",
                    f"The take profit must lie {way} the entry and the stop loss {'below' if buys else 'above'}.",
                    name,
                )
                return

    def part(self, name: str, *, of_types: frozenset[str], order_type: str) -> Decimal | None:
        """Return a part of the quantity: what is shown of it, or the least to be done at once."""
        value = self.optional_positive(name)
        if value is None:
            return None
        if order_type not in of_types:
            self.fault("not_allowed", f"An order of type {order_type} has none.", name)
        elif self.raw.get("quantity") is None:
            self.fault("not_allowed", "Send a quantity with it, not size_by.", name)
        else:
            whole = self._quiet("quantity")
            if whole is not None and value > whole:
                self.fault("out_of_range", "It can't be above the quantity.", name)
        return value

    def _quiet(self, name: str) -> Decimal | None:
        """Return a decimal without blaming it once more."""
        try:
            return decimals.parse(self.raw[name], field=name)
        except Invalid:
            return None

    def check_time(self, order_type: str, time_in_force: str) -> None:
        if time_in_force in AUCTIONS and order_type not in AUCTION_TYPES:
            self.fault("not_allowed", "On open and on close take market and limit orders.", "time_in_force")
        elif time_in_force in IMMEDIATE and order_type in TRAILING | TOUCHED:
            self.fault("not_allowed", "An order that waits for a price can't be immediate.", "time_in_force")

    def good_after(self, time_in_force: str, *, at: datetime) -> datetime | None:
        """Return when the order may begin to work, None for at once."""
        value = self.raw.get("good_after")
        if value is None:
            return None
        moment = _time(value)
        if time_in_force in AUCTIONS:
            self.fault("not_allowed", "An order for the open or the close has its own time.", "good_after")
        elif moment is None:
            self.fault("not_a_time", "Use RFC 3339 with a zone, for example 2026-11-23T10:00:00Z.", "good_after")
        elif not at < moment < at + YEARS:
            self.fault("out_of_range", "The start must lie in the next two years.", "good_after")
        else:
            return moment
        return None

    def _decimal(self, name: str) -> Decimal | None:
        try:
            value = decimals.parse(self.raw[name], field=name)
        except Invalid as error:
            self.errors.append(error)
            return None
        if value <= 0:
            self.fault("not_positive", "The value must be above zero.", name)
            return None
        return value

    def future(self, name: str, *, wanted: bool, at: datetime) -> datetime | None:
        value = self.raw.get(name)
        if value is None:
            if wanted:
                self.fault("required", "A gtd order needs its expiry.", name)
            return None
        if not wanted:
            self.fault("not_allowed", "Only a gtd order has an expiry.", name)
            return None
        moment = _time(value)
        if moment is None:
            self.fault("not_a_time", "Use RFC 3339 with a zone, for example 2026-11-23T10:00:00Z.", name)
        elif not at < moment < at + YEARS:
            self.fault("out_of_range", "The expiry must lie in the next two years.", name)
        else:
            return moment
        return None


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo is not None else None


def _id(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) and len(value) == 36 else None
    except ValueError:
        return None
