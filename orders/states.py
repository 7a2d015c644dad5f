"""The words of an order's life: FIX's OrdStatus in snake_case, with denied and held added."""

from enum import StrEnum


class OrdStatus(StrEnum):
    """The status of a desk order or of a broker order."""

    HELD = "held"
    PENDING_NEW = "pending_new"
    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    DONE_FOR_DAY = "done_for_day"
    CANCELED = "canceled"
    PENDING_CANCEL = "pending_cancel"
    PENDING_REPLACE = "pending_replace"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CALCULATED = "calculated"
    DENIED = "denied"


CLOSED = frozenset(
    {
        OrdStatus.FILLED,
        OrdStatus.CANCELED,
        OrdStatus.REJECTED,
        OrdStatus.EXPIRED,
        OrdStatus.CALCULATED,
        OrdStatus.DENIED,
    }
)
"""Nothing more is asked of these; done_for_day is closed for a day order only. Facts may still arrive."""

OPEN = frozenset(OrdStatus) - CLOSED
LASTING = frozenset({"gtc", "gtd"})
"""Times in force that outlive the day."""


def is_over(status: OrdStatus, time_in_force: str) -> bool:
    """Tell whether nothing more may be filled: a day order that is done for the day is over, a lasting one goes on."""
    return status in CLOSED or (status == OrdStatus.DONE_FOR_DAY and time_in_force not in LASTING)


class SubmissionState(StrEnum):
    """One intent to send. `sent` means it may have arrived; only proof leads out of `unknown`."""

    PREPARED = "prepared"
    SENT = "sent"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    ABSENT = "absent"


BLOCK, ALLOCATION = "block", "allocation"
"""Origins of an order that trades for several accounts, which risk judges and holds for in each of those, and of what each got."""
