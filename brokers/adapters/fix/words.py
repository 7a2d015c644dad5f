"""The words of the port and the characters that stand for them in FIX.4.2 and FIX.4.4."""

from brokers.adapters.port import ReportKind

SIDES = {"buy": "1", "sell": "2", "sell_short": "5"}
SIDES_IN = {"1": "buy", "2": "sell", "5": "sell_short", "6": "sell_short"}
ORDER_TYPES = {"market": "1", "limit": "2", "stop": "3", "stop_limit": "4"}
ORDER_TYPES_IN = {v: k for k, v in ORDER_TYPES.items()}
TIMES_IN_FORCE = {"day": "0", "gtc": "1", "opg": "2", "ioc": "3", "fok": "4", "gtd": "6", "cls": "7"}
TIMES_IN_FORCE_IN = {v: k for k, v in TIMES_IN_FORCE.items()}
STATUSES = {
    "0": "new", "1": "partially_filled", "2": "filled", "3": "done_for_day", "4": "canceled", "5": "replaced",
    "6": "pending_cancel", "7": "stopped", "8": "rejected", "9": "suspended", "A": "pending_new", "B": "calculated",
    "C": "expired", "D": "accepted_for_bidding", "E": "pending_replace",
}  # fmt: skip
KINDS = {
    "0": ReportKind.NEW,
    "1": ReportKind.TRADE,  # FIX.4.2: PartialFill
    "2": ReportKind.TRADE,  # FIX.4.2: Fill
    "3": ReportKind.DONE_FOR_DAY,
    "4": ReportKind.CANCELED,
    "5": ReportKind.REPLACED,
    "6": ReportKind.PENDING_CANCEL,
    "7": ReportKind.STOPPED,
    "8": ReportKind.REJECTED,
    "9": ReportKind.SUSPENDED,
    "A": ReportKind.PENDING_NEW,
    "B": ReportKind.CALCULATED,
    "C": ReportKind.EXPIRED,
    "D": ReportKind.RESTATED,
    "E": ReportKind.PENDING_REPLACE,
    "F": ReportKind.TRADE,
    "G": ReportKind.CORRECT,
    "H": ReportKind.BUST,
    "I": ReportKind.STATUS,
    "L": ReportKind.TRIGGERED,
}
"""ExecType."""
TRANSACTIONS = {"1": ReportKind.BUST, "2": ReportKind.CORRECT, "3": ReportKind.STATUS}
"""ExecTransType of FIX.4.2, where it is not New."""
RESTATEMENTS = {
    "0": "corporate_action", "1": "renewed", "2": "verbal_change", "3": "repriced", "4": "broker_option",
    "5": "partial_decline", "6": "trading_halt", "7": "system_failure", "8": "market_option", "9": "not_best",
}  # fmt: skip
REJECTIONS = {
    "0": "broker option", "1": "unknown symbol", "2": "exchange closed", "3": "order exceeds limit", "4": "too late to enter",
    "5": "unknown order", "6": "duplicate order", "7": "duplicate of a verbally communicated order", "8": "stale order",
    "9": "trade along required", "10": "invalid investor id", "11": "unsupported order characteristic", "12": "surveillance option",
    "13": "incorrect quantity", "14": "incorrect allocated quantity", "15": "unknown account", "99": "other",
}  # fmt: skip
"""OrdRejReason."""
CANCEL_REJECTIONS = {
    "0": "too late to cancel", "1": "unknown order", "2": "broker option", "3": "already pending cancel or replace",
    "4": "unable to process mass cancel", "5": "OrigOrdModTime did not match", "6": "duplicate ClOrdID", "99": "other",
}  # fmt: skip
"""CxlRejReason."""
BUSINESS_REJECTIONS = {
    "0": "other", "1": "unknown id", "2": "unknown security", "3": "unsupported message type", "4": "application not available",
    "5": "conditionally required field missing", "6": "not authorized", "7": "delivery firm not available",
}  # fmt: skip
"""BusinessRejectReason."""
SESSION_REJECTIONS = {
    "0": "invalid tag number", "1": "required tag missing", "2": "tag not defined for this message", "3": "undefined tag",
    "4": "tag without a value", "5": "value out of range", "6": "incorrect data format", "7": "decryption problem",
    "8": "signature problem", "9": "CompID problem", "10": "SendingTime accuracy problem", "11": "invalid MsgType",
    "99": "other",
}  # fmt: skip
"""SessionRejectReason."""
UNKNOWN_ORDER, DUPLICATE_ORDER = "5", "6"
