"""What a broker tells in ExecutionReport and OrderCancelReject, as reports of the port.

| ExecType (150) | FIX.4.2 | report |
|---|---|---|
| F | 1, 2 | trade; with OrdStatus Stopped and more in LastShares than in CumQty a guarantee: stopped |
| G, H | ExecTransType 2, 1 | correct, bust, of the execution in ExecRefID |
| I | ExecTransType 3 | status, which tells nothing new |
| D | D | restated, for the reason of ExecRestatementReason |
| 8 | 8 | rejected; as duplicate where the order of that id stands |

Whatever is missing, unreadable or out of bounds raises `Unreadable`: the bytes are kept, and nothing is guessed.
"""

from datetime import datetime
from decimal import Decimal, InvalidOperation

from brokers.adapters.fix.codec import Message, read_time
from brokers.adapters.fix.settings import Settings
from brokers.adapters.fix.words import (
    BUSINESS_REJECTIONS,
    CANCEL_REJECTIONS,
    DUPLICATE_ORDER,
    KINDS,
    ORDER_TYPES_IN,
    REJECTIONS,
    RESTATEMENTS,
    SESSION_REJECTIONS,
    SIDES_IN,
    STATUSES,
    TIMES_IN_FORCE_IN,
    TRANSACTIONS,
    UNKNOWN_ORDER,
)
from brokers.adapters.port import OrderState, Report, ReportKind
from oms.kernel.decimals import BOUND, FRACTION_DIGITS_MAX, ZERO

ID_LENGTH_MAX = 64
EXECUTIONS = (ReportKind.TRADE, ReportKind.BUST, ReportKind.CORRECT)
NO_ID = ("", "NONE")


class Unreadable(ValueError):
    """A message that must not reach the books; `tag` is the field that is wrong, `reason` its SessionRejectReason."""

    def __init__(self, text: str, tag: int = 0, reason: int = 5) -> None:
        super().__init__(text)
        self.tag, self.reason = tag, reason


def execution_report(message: Message, settings: Settings) -> Report:
    """Return what an ExecutionReport tells."""
    kind = _kind(message, settings)
    status = _word(message, 39, STATUSES)
    client_order_id, orig = _id(message, 11), _id(message, 41)
    broker_order_id = _id(message, 37)
    if not client_order_id and not broker_order_id:
        raise Unreadable("neither ClOrdID nor OrderID", 11, 1)
    last = (_number(message, 32), _number(message, 31, any_sign=True))
    cumulative = _number(message, 14) or ZERO
    if kind in EXECUTIONS:
        kind = _execution(message, kind, status, last, cumulative)
    if kind is ReportKind.STATUS and status == "pending_new":
        kind = ReportKind.PENDING_NEW
    return Report(
        kind=kind,
        client_order_id=client_order_id,
        orig_client_order_id=orig or None,
        broker_order_id=broker_order_id or None,
        account="" if settings.account else message.text(1),
        symbol=message.text(55),
        side=SIDES_IN.get(message.text(54), ""),
        order_status=status,
        order_quantity=_number(message, 38) or ZERO,
        cumulative_quantity=cumulative,
        leaves_quantity=_number(message, 151) or ZERO,
        execution_id=_id(message, 17) or None if kind in EXECUTIONS else None,
        ref_execution_id=_id(message, 19) or None,
        last_quantity=last[0],
        last_price=last[1],
        limit_price=_number(message, 44, any_sign=True),
        stop_price=_number(message, 99, any_sign=True),
        executed_at=_time(message),
        liquidity={"1": "maker", "2": "taker"}.get(message.text(851), ""),
        reason=_reason(message, kind, status),
        text=_text(message, 103, REJECTIONS if kind is ReportKind.REJECTED else {}),
    )


def cancel_reject(message: Message) -> Report:
    """Return what an OrderCancelReject tells."""
    client_order_id = _id(message, 11)
    if not client_order_id:
        raise Unreadable("no ClOrdID", 11, 1)
    kind = ReportKind.REPLACE_REJECTED if message.text(434) == "2" else ReportKind.CANCEL_REJECTED
    return Report(
        kind=kind,
        client_order_id=client_order_id,
        orig_client_order_id=_id(message, 41) or None,
        broker_order_id=_id(message, 37) or None,
        account="",
        symbol="",
        side="",
        order_status=_word(message, 39, STATUSES),
        order_quantity=ZERO,
        cumulative_quantity=ZERO,
        leaves_quantity=ZERO,
        executed_at=_time(message),
        text=_text(message, 102, CANCEL_REJECTIONS),
    )


REFUSED = {"D": ReportKind.REJECTED, "F": ReportKind.CANCEL_REJECTED, "G": ReportKind.REPLACE_REJECTED}


def refusal(message: Message, sent: Message, kind: str, client_order_id: str) -> Report:
    """Return what a Reject or BusinessMessageReject says of a request of ours: by the standard it was not acted upon."""
    reasons = (373, SESSION_REJECTIONS) if message.kind == "3" else (380, BUSINESS_REJECTIONS)
    return Report(
        kind=REFUSED[kind],
        client_order_id=client_order_id,
        orig_client_order_id=sent.get(41),
        account="",
        symbol="",
        side="",
        order_status="rejected" if kind == "D" else "",
        order_quantity=ZERO,
        cumulative_quantity=ZERO,
        leaves_quantity=ZERO,
        executed_at=_time(message),
        text=_text(message, *reasons),
    )


def order_state(message: Message, settings: Settings) -> OrderState | None:
    """Return how an order stands by the answer to a question; None where the broker knows none of that id."""
    report = execution_report(message, settings)
    if is_unknown(message):
        return None
    return OrderState(
        client_order_id=report.client_order_id,
        broker_order_id=report.broker_order_id or "",
        account=report.account,
        symbol=report.symbol,
        side=report.side,
        status=report.order_status,
        order_type=ORDER_TYPES_IN.get(message.text(40), ""),
        time_in_force=TIMES_IN_FORCE_IN.get(message.text(59), ""),
        quantity=report.order_quantity,
        cumulative_quantity=report.cumulative_quantity,
        leaves_quantity=report.leaves_quantity,
        limit_price=report.limit_price,
        stop_price=report.stop_price,
        reason=_text(message, 103, REJECTIONS),
    )


def is_unknown(message: Message) -> bool:
    """Tell whether an answer says that there is no such order: it is rejected, and why is that nobody knows it."""
    if message.text(39) != "8":
        return False
    if message.get(103) is not None:
        return message.text(103) == UNKNOWN_ORDER
    return message.text(37) in NO_ID and not _number(message, 14)


def _kind(message: Message, settings: Settings) -> ReportKind:
    if not settings.is_44 and (undoing := TRANSACTIONS.get(message.text(20))):
        return undoing
    told = message.text(150)
    if not told:
        raise Unreadable("no ExecType", 150, 1)
    if told not in KINDS:
        raise Unreadable(f"ExecType {told!r} is none that is known here", 150)
    return KINDS[told]


def _execution(
    message: Message,
    kind: ReportKind,
    status: str,
    last: tuple[Decimal | None, Decimal | None],
    cumulative: Decimal,
) -> ReportKind:
    """Judge that an execution tells all that the books need; a guarantee told as a fill is a guarantee."""
    quantity, price = last
    if kind is ReportKind.TRADE:
        if quantity is None or price is None:
            raise Unreadable("a fill without LastQty and LastPx", 32 if quantity is None else 31, 1)
        if status == "stopped" and quantity > cumulative:
            return ReportKind.STOPPED
        if quantity == 0:
            raise Unreadable("a fill of nothing", 32)
    elif not _id(message, 19):
        raise Unreadable(f"a {kind} without ExecRefID", 19, 1)
    if kind is ReportKind.CORRECT and (quantity is None or price is None):
        raise Unreadable("a correction without LastQty and LastPx", 32 if quantity is None else 31, 1)
    if not _id(message, 17):
        raise Unreadable(f"a {kind} without ExecID", 17, 1)
    return kind


def _reason(message: Message, kind: ReportKind, status: str) -> str:
    if kind is ReportKind.REJECTED:
        return "duplicate" if message.text(103) == DUPLICATE_ORDER and status != "rejected" else ""
    return RESTATEMENTS.get(message.text(378), "")


def _text(message: Message, tag: int, words: dict[str, str]) -> str:
    """Return a reason in words, with the broker's own text."""
    word = words.get(message.text(tag), "")
    return ": ".join(t for t in (word, message.text(58)) if t)[:200]


def _time(message: Message) -> datetime | None:
    number = message.sequence or 0
    for tag in (60, 122, 52):
        if (at := read_time(message.get(tag), number)) is not None:
            return at
    return None


def _word(message: Message, tag: int, words: dict[str, str]) -> str:
    told = message.text(tag)
    if not told:
        raise Unreadable(f"no tag {tag}", tag, 1)
    if told not in words:
        raise Unreadable(f"tag {tag} is {told!r}, which is no word of it", tag)
    return words[told]


def _id(message: Message, tag: int) -> str:
    value = message.text(tag)
    if len(value) > ID_LENGTH_MAX:
        raise Unreadable(f"tag {tag} is longer than any column", tag)
    return "" if value in NO_ID else value


def _number(message: Message, tag: int, *, any_sign: bool = False) -> Decimal | None:
    """Return a number exactly as it was told; raises `Unreadable` for what no column holds."""
    told = message.get(tag)
    if told is None or told == "":
        return None
    try:
        value = Decimal(told)
    except InvalidOperation:
        raise Unreadable(f"tag {tag} is no number: {told[:40]!r}", tag, 6) from None
    if not (value.is_finite() and abs(value) < BOUND) or "E" in told.upper() or "_" in told:
        raise Unreadable(f"tag {tag} is out of bounds: {told[:40]!r}", tag, 6)
    if len(told.partition(".")[2].rstrip("0")) > FRACTION_DIGITS_MAX:
        raise Unreadable(f"tag {tag} has more places than are kept: {told[:40]!r}", tag, 6)
    if value < 0 and not any_sign:
        raise Unreadable(f"tag {tag} is below zero: {told[:40]!r}", tag)
    return value
