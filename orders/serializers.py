"""Orders as the API takes and shows them: the schema's words. Tickets are judged by `orders.domain.tickets`."""

from rest_framework import serializers

from oms.runtime.rest import DecimalText, ProblemOut, Strict
from orders.domain.algos import AT_ENDS, CATCH_UPS, NAMES, SLICES_MAX
from orders.domain.groups import Role
from orders.domain.tickets import GROUP_KINDS, LOTS_MAX, ORDER_TYPES, POLICIES, SIDES, TIMES_IN_FORCE
from orders.states import OrdStatus, SubmissionState
from risk.domain.rules import SELF_TRADE_MODES

STATUSES = [s.value for s in OrdStatus]
ROLES = [r.value for r in Role]
_Base = serializers.Serializer


class SizeByIn(Strict):
    """A size to work out, rounded down to whole lots: one of `notional` (an amount of the account's currency), `weight`
    (that fraction of the account's equity), or `risk_fraction` with `stop_price` (a move from the price to the stop
    loses that fraction of the equity)."""

    notional = DecimalText(required=False, positive=True)
    weight = DecimalText(required=False, positive=True, help_text="At most 1.")
    risk_fraction = DecimalText(required=False, positive=True, help_text="At most 1.")
    stop_price = DecimalText(required=False, positive=True, help_text="With risk_fraction, and only with it.")


class AlgoIn(Strict):
    """How a large market or limit order is worked in slices, each judged and routed by itself. Only `name` is needed.

    twap spreads it evenly, vwap by the usual volume, is (implementation shortfall) at the front by its urgency, pov follows
    the volume traded, iceberg shows a part of it at a time. An end that leaves something is told by `at_end`.
    """

    name = serializers.ChoiceField(choices=NAMES)
    start_at = serializers.DateTimeField(required=False, allow_null=True, help_text="Now if absent.")
    end_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="twap, vwap, is: an hour after the start, or the close, if absent."
    )
    participation = DecimalText(
        required=False, allow_null=True, help_text="Share of the market's volume: the aim of pov (0.1), else a ceiling."
    )
    slices = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=SLICES_MAX, help_text="One a minute if absent."
    )
    urgency = serializers.CharField(
        required=False, allow_null=True, help_text="is: 0 (evenly) to 1 (at the front), or low, medium, high."
    )
    seed = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, help_text="Chance is drawn from it; told if absent."
    )
    catch_up = serializers.ChoiceField(
        choices=CATCH_UPS,
        required=False,
        allow_null=True,
        help_text="What an earlier slice did not place: spread over those left, at once with the next, or never.",
    )
    at_end = serializers.ChoiceField(
        choices=AT_ENDS,
        required=False,
        allow_null=True,
        help_text="What is left at the end: cancel it, or complete it at once. A market order by schedule: complete.",
    )
    vary_size = DecimalText(required=False, allow_null=True, help_text="How far chance moves a slice's size; 0 to 0.5.")
    vary_time = DecimalText(required=False, allow_null=True, help_text="How far in its interval; 0 to 0.5.")


class TakeProfitIn(Strict):
    """The exit that takes the profit: a limit order on the other side, for what the entry has filled."""

    limit_price = DecimalText(positive=True)


class StopLossIn(Strict):
    """The exit that ends the loss: a stop order on the other side, a stop-limit order with a `limit_price`."""

    stop_price = DecimalText(positive=True)
    limit_price = DecimalText(required=False, allow_null=True, positive=True)


class GroupIn(Strict):
    """The group that an order belongs to. `oco`: one cancels the others; `oto`: the first one posted triggers the others."""

    kind = serializers.ChoiceField(choices=GROUP_KINDS)
    id = serializers.RegexField(r"^[A-Za-z0-9_.:\-]{1,64}$", help_text="Yours, unique in the account for good.")


class OrderIn(Strict):
    """An order, of a `quantity` or a `size_by`. `limit_price` is for limit, stop_limit, trailing_stop_limit and limit_if_touched;
    `stop_price`, what the market must reach, for stop, stop_limit, market_if_touched and limit_if_touched, and for trailing ones
    what they begin with; `expire_at` for gtd."""

    client_order_id = serializers.RegexField(
        r"^[A-Za-z0-9_.:\-]{1,64}$", required=False, help_text="Yours, unique in the account for good; made if absent."
    )
    account = serializers.RegexField(r"^[A-Za-z0-9_.:\-]{1,64}$")
    symbol = serializers.RegexField(r"^[A-Za-z0-9_.:/\-]{1,32}$")
    side = serializers.ChoiceField(choices=SIDES)
    quantity = DecimalText(required=False, help_text="Needed unless size_by is given.")
    size_by = SizeByIn(required=False, allow_null=True)
    order_type = serializers.ChoiceField(choices=ORDER_TYPES)
    limit_price = DecimalText(required=False, allow_null=True)
    stop_price = DecimalText(required=False, allow_null=True)
    time_in_force = serializers.ChoiceField(choices=TIMES_IN_FORCE, required=False, default="day")
    expire_at = serializers.DateTimeField(required=False, allow_null=True)
    trail_amount = DecimalText(required=False, allow_null=True, help_text="Trailing orders: this or trail_percent.")
    trail_percent = DecimalText(required=False, allow_null=True, help_text="Below 100.")
    good_after = serializers.DateTimeField(required=False, allow_null=True, help_text="Nothing is sent before.")
    display_quantity = DecimalText(
        required=False,
        allow_null=True,
        help_text="What the market sees of it: shown by a broker that can, else by the desk.",
    )
    min_quantity = DecimalText(
        required=False, allow_null=True, help_text="The least to trade at once; brokers that can."
    )
    reduce_only = serializers.BooleanField(
        required=False, allow_null=True, help_text="Denied where it could open a position."
    )
    self_trade_prevention = serializers.ChoiceField(
        choices=SELF_TRADE_MODES, required=False, allow_null=True, help_text="Instead of the account's own mode."
    )
    do_not_reduce = serializers.BooleanField(
        required=False, default=False, help_text="Of gtc and gtd orders: a dividend doesn't lower the price."
    )
    broker = serializers.RegexField(
        r"^[A-Za-z0-9_.:\-]{1,64}$", required=False, allow_null=True, help_text="Directed: no routing."
    )
    algo = AlgoIn(required=False, allow_null=True)
    strategy = serializers.RegexField(r"^[A-Za-z0-9_.:\-]{1,64}$", required=False, allow_null=True)
    note = serializers.CharField(required=False, max_length=200, allow_blank=True)
    lots = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        allow_null=True,
        max_length=LOTS_MAX,
        help_text="Open lots to close first; what they don't cover, the account's method chooses.",
    )
    take_profit = TakeProfitIn(required=False, allow_null=True, help_text="With stop_loss: a bracket.")
    stop_loss = StopLossIn(required=False, allow_null=True)
    group = GroupIn(required=False, allow_null=True)
    partial_fills = serializers.ChoiceField(
        choices=POLICIES,
        required=False,
        help_text="When what waits for this order begins, and with how much: as large a part as is filled (pro_rata, the "
        "default), whole on the first fill, or whole once all is filled. Exits never work for more than is filled.",
    )


class ReasonOut(_Base):
    """Why an order was denied, rejected or ended."""

    code = serializers.CharField()
    detail = serializers.CharField()


class ArrivalOut(_Base):
    """The market when the order was decided."""

    bid = DecimalText()
    ask = DecimalText()
    at = serializers.DateTimeField()


class AlgoOut(_Base):
    """How an order is worked, with every default told, and how far that has come. What an algorithm has none of is absent."""

    name = serializers.ChoiceField(choices=NAMES)
    start_at = serializers.DateTimeField()
    end_at = serializers.DateTimeField(required=False)
    participation = DecimalText(required=False)
    slices = serializers.IntegerField(required=False)
    urgency = DecimalText(required=False)
    seed = serializers.IntegerField()
    catch_up = serializers.ChoiceField(choices=CATCH_UPS, required=False)
    at_end = serializers.ChoiceField(choices=AT_ENDS)
    vary_size = DecimalText(required=False)
    vary_time = DecimalText(required=False)
    state = serializers.ChoiceField(choices=["waiting", "working", "paused", "over"])
    slices_sent = serializers.IntegerField()
    slices_left = serializers.IntegerField(help_text="Planned so far; pov and iceberg plan the next as they go.")
    next_slice_at = serializers.DateTimeField(allow_null=True)
    working_quantity = DecimalText(help_text="At brokers now.")
    why = serializers.CharField(
        required=False, allow_null=True, help_text="Why the last slice was not sent, or it is paused."
    )


class SliceOut(_Base):
    """A slice of a worked order. `status` and `filled_quantity` are its broker order's."""

    number = serializers.IntegerField()
    due_at = serializers.DateTimeField()
    planned_quantity = DecimalText()
    state = serializers.ChoiceField(choices=["planned", "claimed", "sent", "skipped", "denied"])
    quantity = DecimalText(allow_null=True)
    child = serializers.UUIDField(allow_null=True)
    status = serializers.ChoiceField(choices=STATUSES, allow_null=True)
    filled_quantity = DecimalText(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    detail = serializers.CharField(allow_blank=True)


class GroupRefOut(_Base):
    """The group an order belongs to, and what it is there."""

    kind = serializers.ChoiceField(choices=["bracket", *GROUP_KINDS])
    id = serializers.CharField()
    role = serializers.ChoiceField(choices=ROLES)
    partial_fills = serializers.ChoiceField(choices=POLICIES)


class OrderOut(_Base):
    """An order as it stands. `unknown`: a broker may or may not have it, and is being asked."""

    id = serializers.UUIDField()
    client_order_id = serializers.CharField()
    account = serializers.CharField()
    symbol = serializers.CharField()
    side = serializers.ChoiceField(choices=SIDES)
    quantity = DecimalText()
    size_by = serializers.DictField(
        child=DecimalText(), allow_null=True, help_text="What the quantity was worked out from, as asked."
    )
    lots = serializers.ListField(child=serializers.UUIDField(), allow_null=True, help_text="Lots to close first.")
    order_type = serializers.ChoiceField(choices=ORDER_TYPES)
    limit_price = DecimalText(allow_null=True)
    stop_price = DecimalText(allow_null=True)
    time_in_force = serializers.ChoiceField(choices=TIMES_IN_FORCE)
    expire_at = serializers.DateTimeField(allow_null=True)
    trail_amount = DecimalText(allow_null=True)
    trail_percent = DecimalText(allow_null=True)
    good_after = serializers.DateTimeField(allow_null=True)
    display_quantity = DecimalText(allow_null=True)
    min_quantity = DecimalText(allow_null=True)
    reduce_only = serializers.BooleanField()
    self_trade_prevention = serializers.ChoiceField(choices=SELF_TRADE_MODES, allow_null=True)
    do_not_reduce = serializers.BooleanField()
    take_profit = serializers.DictField(child=DecimalText(), allow_null=True)
    stop_loss = serializers.DictField(child=DecimalText(), allow_null=True)
    group = GroupRefOut(allow_null=True)
    broker = serializers.CharField(allow_null=True)
    strategy = serializers.CharField(allow_null=True)
    note = serializers.CharField(allow_blank=True)
    status = serializers.ChoiceField(choices=STATUSES)
    unknown = serializers.BooleanField()
    filled_quantity = DecimalText()
    leaves_quantity = DecimalText()
    average_price = DecimalText(allow_null=True)
    fees = DecimalText()
    reason = ReasonOut(allow_null=True)
    version = serializers.IntegerField()
    parent = serializers.UUIDField(allow_null=True)
    origin = serializers.ChoiceField(
        choices=["desk", "signal", "rebalance", "liquidation", "external", "block", "allocation"]
    )
    triggered_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    decided_at = serializers.DateTimeField()
    arrival = ArrivalOut(allow_null=True)
    algo = AlgoOut(allow_null=True)


class GroupOrderOut(_Base):
    """One order of a group."""

    id = serializers.UUIDField()
    role = serializers.ChoiceField(choices=ROLES)
    side = serializers.ChoiceField(choices=SIDES)
    order_type = serializers.ChoiceField(choices=ORDER_TYPES)
    limit_price = DecimalText(allow_null=True)
    stop_price = DecimalText(allow_null=True)
    status = serializers.ChoiceField(choices=STATUSES)
    quantity = DecimalText()
    filled_quantity = DecimalText()
    leaves_quantity = DecimalText()


class GroupOut(_Base):
    """A group with its orders. `excess`: units filled beyond what one cancels the others for; `attention`: a person is needed."""

    id = serializers.CharField()
    kind = serializers.ChoiceField(choices=["bracket", *GROUP_KINDS])
    partial_fills = serializers.ChoiceField(choices=POLICIES)
    state = serializers.ChoiceField(choices=["working", "attention", "done"])
    excess = DecimalText()
    problem = serializers.CharField(allow_null=True)
    orders = GroupOrderOut(many=True)


class SignalIn(Strict):
    """A strategy's wish: a market order for the day, sized when it is placed. `key` makes a repeat harmless."""

    strategy = serializers.RegexField(r"^[A-Za-z0-9_.:\-]{1,64}$")
    symbol = serializers.RegexField(r"^[A-Za-z0-9_.:/\-]{1,32}$")
    side = serializers.ChoiceField(choices=SIDES)
    size_by = SizeByIn()
    account = serializers.RegexField(r"^[A-Za-z0-9_.:\-]{1,64}$")
    key = serializers.RegexField(
        r"^[A-Za-z0-9_.:\-]{1,128}$", help_text="Unique in the account and strategy, for good."
    )


class BatchIn(Strict):
    """Up to 1,000 orders, each judged alone."""

    orders = OrderIn(many=True, min_length=1, max_length=1_000)


class BatchPartOut(_Base):
    """The answer to one order of a batch: 201 made, 200 a replay, else the problem."""

    status = serializers.IntegerField()
    order = OrderOut(required=False)
    problem = ProblemOut(required=False)


class BatchOut(_Base):
    """Answers in the order of the request."""

    results = BatchPartOut(many=True)


class StatusOut(_Base):
    """The short status."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=STATUSES)
    unknown = serializers.BooleanField()
    filled_quantity = DecimalText()
    leaves_quantity = DecimalText()
    average_price = DecimalText(allow_null=True)
    version = serializers.IntegerField()
    updated_at = serializers.DateTimeField()


class CancelIn(Strict):
    """Why, if it should stand in the audit trail."""

    reason = serializers.CharField(required=False, default="", allow_blank=True, max_length=200)


class PauseIn(Strict):
    """What shall become of the slices that work."""

    cancel_working = serializers.BooleanField(required=False, default=True)


class ResumeIn(Strict):
    """Nothing needs to be said."""


class CancelManyIn(Strict):
    """Which open orders shall end: all that fit every field given."""

    account = serializers.CharField(required=False, default="", max_length=64)
    symbol = serializers.CharField(required=False, default="", max_length=32)
    strategy = serializers.CharField(required=False, default="", max_length=64)
    side = serializers.ChoiceField(choices=SIDES, required=False)


class CanceledOut(_Base):
    """How many orders were asked to end."""

    canceled = serializers.IntegerField()


class TermsIn(Strict):
    """What shall change."""

    quantity = DecimalText(required=False)
    limit_price = DecimalText(required=False)
    stop_price = DecimalText(required=False)
    time_in_force = serializers.ChoiceField(choices=["day", "gtc"], required=False)
    expected_version = serializers.IntegerField(required=False, help_text="409 when the order has another by now.")


class SubmissionOut(_Base):
    """One intent to tell a broker something."""

    kind = serializers.ChoiceField(choices=["new", "cancel", "replace"])
    client_order_id = serializers.CharField()
    state = serializers.ChoiceField(choices=[s.value for s in SubmissionState])
    attempts = serializers.IntegerField()
    sent_at = serializers.DateTimeField(allow_null=True)
    log = serializers.ListField(child=serializers.DictField())


class ChildOut(_Base):
    """What one broker was asked for."""

    id = serializers.UUIDField()
    broker = serializers.CharField()
    client_order_id = serializers.CharField()
    broker_order_id = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(choices=STATUSES)
    quantity = DecimalText()
    filled_quantity = DecimalText()
    leaves_quantity = DecimalText()
    submissions = SubmissionOut(many=True)


class FeeItemOut(_Base):
    """One fee; below zero is a rebate."""

    kind = serializers.CharField()
    amount = DecimalText()
    currency = serializers.CharField()


class ExecutionOut(_Base):
    """A fill, or the bust or correction of one (`ref`)."""

    id = serializers.UUIDField()
    order = serializers.UUIDField()
    child = serializers.UUIDField()
    broker = serializers.CharField()
    broker_execution_id = serializers.CharField()
    kind = serializers.ChoiceField(choices=["trade", "bust", "correct"])
    side = serializers.ChoiceField(choices=SIDES)
    quantity = DecimalText()
    price = DecimalText()
    fees = DecimalText(allow_null=True)
    executed_at = serializers.DateTimeField()
    received_at = serializers.DateTimeField()
    ref = serializers.UUIDField(allow_null=True)
    settle_date = serializers.DateField()
    fee_items = FeeItemOut(many=True)
    currency = serializers.CharField()


class TimelineOut(_Base):
    """One entry of an order's audit timeline; what else it holds depends on its kind."""

    at = serializers.DateTimeField()
    kind = serializers.CharField()
    actor = serializers.CharField()


class DecisionOut(_Base):
    """A routing decision with every broker looked at, taken or not."""

    id = serializers.UUIDField()
    at = serializers.DateTimeField()
    model_version = serializers.CharField()
    candidates = serializers.ListField(child=serializers.DictField())


class PreviewOut(_Base):
    """What placing the order would do now."""

    approved = serializers.BooleanField()
    held = serializers.BooleanField(help_text="Only a soft limit stands against it: another person may let it pass.")
    reason = ReasonOut(allow_null=True)
    quantity = DecimalText(help_text="In whole lots; worked out where size_by was sent.")
    checks = serializers.ListField(child=serializers.DictField())
    routing = serializers.DictField()
    cost = serializers.DictField(allow_null=True)
    fees = DecimalText(allow_null=True, help_text="Expected at the chosen broker, in the instrument's currency.")
    cash_after = serializers.DictField(allow_null=True)
    holds_after = serializers.DictField(allow_null=True)
    lots = serializers.ListField(child=serializers.DictField())
    wash_sale = serializers.DictField(
        allow_null=True,
        help_text="The loss, with its currency, that a fill now would move to lots bought within 30 days; null for none.",
    )
    unpaid_sale = serializers.DictField(
        allow_null=True,
        help_text="What a cash account would violate: good_faith or free_riding, and until when to wait.",
    )
    algo = AlgoOut(allow_null=True)
    slices = SliceOut(many=True, help_text="The schedule of a worked order, as far as it is known from the start.")


class UpdatesOut(_Base):
    """Frames after a sequence, as the WebSocket sends them."""

    frames = serializers.ListField(child=serializers.DictField())
    next_since = serializers.IntegerField()
