"""What the desk asks of a broker, as FIX application messages: NewOrderSingle, cancel, replace, and the questions."""

from datetime import datetime
from decimal import Decimal

from brokers.adapters.fix.codec import Message as Received
from brokers.adapters.fix.codec import pairs_of, written
from brokers.adapters.fix.settings import Settings
from brokers.adapters.fix.words import ORDER_TYPES, SIDES, TIMES_IN_FORCE
from brokers.adapters.port import CancelOrder, Message, NewOrder, ReplaceOrder, Report

AUTOMATED = "1"
ALL_ORDERS = "7"
Body = list[tuple[int, object]]


def compose(message: Message, settings: Settings, at: datetime) -> tuple[str, Body]:
    """Return the MsgType and the fields of a message."""
    account = settings.account or message.account
    same: Body = [(1, account or None), (55, message.symbol), (54, SIDES[message.side])]
    if isinstance(message, CancelOrder):
        return "F", [
            (41, message.orig_client_order_id), (37, message.broker_order_id), (11, message.client_order_id), *same,
            (60, written(at)), (38, _number(message.quantity)),
        ]  # fmt: skip
    head: Body = [(11, message.client_order_id)]
    if isinstance(message, ReplaceOrder):
        head = [(37, message.broker_order_id), (41, message.orig_client_order_id), *head]
    body: Body = [
        *head, *same, (21, AUTOMATED), (60, written(at)), (38, _number(message.quantity)),
        (40, ORDER_TYPES[message.order_type]), (44, _number(message.limit_price)), (99, _number(message.stop_price)),
        (59, TIMES_IN_FORCE[message.time_in_force]), (126, written(message.expire_at) if message.expire_at else None),
        (111, _number(message.display_quantity)), (110, _number(message.min_quantity)),
        (114, "N" if message.side == "sell_short" else None),
    ]  # fmt: skip
    return ("D" if isinstance(message, NewOrder) else "G"), body + pairs_of(settings.order_fields)


def status_request(sent: Received, client_order_id: str, question: str, settings: Settings) -> tuple[str, Body]:
    """Return an OrderStatusRequest about a message as it was sent; only FIX.4.4 gives questions a name."""
    body: Body = [(37, sent.get(37)), (11, client_order_id), (1, sent.get(1)), (55, sent.text(55)), (54, sent.text(54))]
    return "H", body + ([(790, question)] if settings.is_44 else [])


def mass_status_request(question: str) -> tuple[str, Body]:
    """Return an OrderMassStatusRequest about all orders."""
    return "AF", [(584, question), (585, ALL_ORDERS)]


def dont_know_trade(report: Report, why: str) -> tuple[str, Body]:
    """Return a DontKnowTrade about an execution."""
    return "Q", [
        (37, report.broker_order_id or "NONE"), (17, report.execution_id), (127, why), (55, report.symbol),
        (54, SIDES.get(report.side)), (32, _number(report.last_quantity)), (31, _number(report.last_price)),
    ]  # fmt: skip


def _number(value: Decimal | None) -> str | None:
    """Return a decimal in plain notation without needless zeros: exact, as it was."""
    if value is None:
        return None
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
