"""The desk: every operation takes a sequence and works set-based; one order is a batch of one."""

from orders.operations.allocating import advance_blocks
from orders.operations.changing import cancel, cancel_group, cancel_matching, replace
from orders.operations.following import follow_groups
from orders.operations.guarding import guard
from orders.operations.liquidating import advance_all
from orders.operations.meeting import leave_open, meet_again, probe
from orders.operations.placing import Placed, Request, key_of, place
from orders.operations.previewing import preview
from orders.operations.rebalancing import advance_rebalances, propose_by_rule
from orders.operations.releasing import decide_release, lapse_held, release_apart
from orders.operations.reporting import apply, apply_parked, fits_none
from orders.operations.sending import resolve, send, send_once
from orders.operations.triggering import watch
from orders.operations.working import is_due, pause, resume, work

__all__ = [
    "Placed",
    "Request",
    "advance_all",
    "advance_blocks",
    "advance_rebalances",
    "apply",
    "apply_parked",
    "cancel",
    "cancel_group",
    "cancel_matching",
    "decide_release",
    "fits_none",
    "follow_groups",
    "guard",
    "is_due",
    "key_of",
    "lapse_held",
    "leave_open",
    "meet_again",
    "pause",
    "place",
    "preview",
    "probe",
    "propose_by_rule",
    "release_apart",
    "replace",
    "resolve",
    "resume",
    "send",
    "send_once",
    "watch",
    "work",
]
