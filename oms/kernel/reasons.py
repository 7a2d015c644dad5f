"""Why an order was denied, rejected or ended: stable codes, one list, documented from here."""

from enum import StrEnum


class Reason(StrEnum):
    """A reason code with the sentence a person reads."""

    sentence: str

    def __new__(cls, code: str, sentence: str = "") -> "Reason":
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    QUANTITY_LIMIT = "quantity_limit", "The quantity is above the limit for one order."
    NOTIONAL_LIMIT = "notional_limit", "The value is above the limit for one order."
    QUANTITY_MINIMUM = "quantity_minimum", "The quantity is below the least for one order."
    NOTIONAL_MINIMUM = "notional_minimum", "The value is below the least for one order."
    PRICE_COLLAR = "price_collar", "The price is too far through the market."
    STALE_QUOTE = "stale_quote", "The last quote is too old to trade on."
    NO_QUOTE = "no_quote", "There is no quote or rate to value the order."
    CROSSED_QUOTE = "crossed_quote", "The last quote has its bid above its ask."
    POSITION_LIMIT = "position_limit", "The position, with all open orders filled, would pass its limit."
    NET_EXPOSURE_LIMIT = "net_exposure_limit", "The net exposure, with all open orders filled, would pass its limit."
    LEVERAGE_LIMIT = "leverage_limit", "The exposure would be too large for the account's equity."
    CONCENTRATION_LIMIT = "concentration_limit", "Too much of the account's equity would hang on one thing."
    OPEN_ORDERS_LIMIT = "open_orders_limit", "Too many orders are open; cancel some, or wait for fills."
    RATE_LIMIT = "rate_limit", "Too many orders or changes in a second; slow down."
    STRATEGY_THROTTLED = (
        "strategy_throttled",
        "The strategy sent as many orders as it may until a person enables it again.",
    )
    LOSS_LIMIT = "loss_limit", "The account has lost more than it may; only what reduces a position passes."
    VOLUME_LIMIT = "volume_limit", "The order is too large against what the market trades."
    NO_VOLUME = "no_volume", "Nothing is known to have been traded, to compare the order with."
    COMPLIANCE = "compliance", "A compliance rule forbids it."
    SPREAD_TOO_WIDE = "spread_too_wide", "The market stands too wide to trade in."
    BUYING_POWER = "buying_power", "The account lacks the free cash for the worst case."
    UNSETTLED_CASH = "unsettled_cash", "The settled cash does not pay for it; wait until sales have settled."
    DAY_TRADE_LIMIT = "day_trade_limit", "It could make one day trade more than the account's equity allows."
    NOT_LOCATED = "not_located", "The units to be sold short were not located for today."
    SELF_TRADE = "self_trade", "It would trade with an open order of the same account."
    WOULD_NOT_REDUCE = "would_not_reduce", "It is to reduce a position only, and could open one."
    LIST_REFUSED = "list_refused", "Another order of the same list was refused, and all were to be placed or none."
    DUPLICATE_SUSPECT = "duplicate_suspect", "The same order was sent a moment ago under another id."
    RESTRICTED = "restricted", "The instrument is on the restricted list."
    NOT_PERMITTED = "not_permitted", "The account, trader or strategy may not trade this."
    HALTED = "halted", "Trading is halted for this scope."
    LIMIT_MISSING = "limit_missing", "A limit that must exist is not set, so nothing may trade."
    NO_ROUTE = "no_route", "No broker can take the order."
    SHORT_NOT_ALLOWED = (
        "short_not_allowed",
        "The sale is larger than the position and is not a permitted short sale.",
    )
    ACCOUNT_CLOSED = "account_closed", "The account is closed."
    SESSION_CLOSED = (
        "session_closed",
        "The exchange is closed; send a gtc or gtd order with a price, or wait until it opens.",
    )
    AUCTION_CUTOFF = "auction_cutoff", "It comes too late for the auction that it is for."
    CHECK_FAILED = "check_failed", "A risk check could not be computed, so the order was stopped."
    APPROVAL_REFUSED = "approval_refused", "The approver said no."
    APPROVAL_EXPIRED = "approval_expired", "Nobody approved the order in time."
    BROKER_REJECTED = "broker_rejected", "The broker refused the order."
    BROKER_UNREACHABLE = "broker_unreachable", "No broker could be reached while the order was valid."
    TOO_LATE = "too_late", "The order's time ran out before it could be sent."
    ALGO_ENDED = "algo_ended", "The time to work the order ran out before all of it was done."
    CORPORATE_ACTION = "corporate_action", "A corporate action left nothing of it to trade."
    CANCEL_REQUESTED = "cancel_requested", "A user asked for the cancel."
    SIBLING_FILLED = "sibling_filled", "Another order of its group was filled instead."
    SIBLING_CANCELED = "sibling_canceled", "Another leg of its group was canceled, and one cancels the others."
    PARENT_ENDED = "parent_ended", "The order that it waited for ended without a fill."
    GROUP_EXCESS = "group_excess", "More of a group was filled than it may; this order would undo the rest."
    UNSOLICITED = "unsolicited", "The broker ended the order unasked."
