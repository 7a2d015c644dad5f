"""Writes of risk: verdicts and holds, limits and who approved them, halts."""

from risk.operations.approving import ask, asked_before, content_hash, settle, withdraw
from risk.operations.checking import (
    Decided,
    check,
    judge_again,
    judge_legs,
    judge_released,
    recheck,
    rescaled,
    resize,
    take_over,
)
from risk.operations.complying import decide_compliance_rule, dispose, propose_compliance_rule, review
from risk.operations.enabling import enable_strategy
from risk.operations.halting import engage_halt, freeze, release_halt
from risk.operations.limiting import decide, propose_limit
from risk.operations.restricting import restrict
from risk.operations.ruling import decide_rules, locate, propose_rules
from risk.operations.showing import push_exposures
from risk.operations.tripping import clock_drift, losses, newly_crossed, note_trip, quotes_stale, wires

__all__ = [
    "Decided",
    "ask",
    "asked_before",
    "check",
    "clock_drift",
    "content_hash",
    "decide",
    "decide_compliance_rule",
    "decide_rules",
    "dispose",
    "enable_strategy",
    "engage_halt",
    "freeze",
    "judge_again",
    "judge_legs",
    "judge_released",
    "locate",
    "losses",
    "newly_crossed",
    "note_trip",
    "propose_compliance_rule",
    "propose_limit",
    "propose_rules",
    "push_exposures",
    "quotes_stale",
    "recheck",
    "release_halt",
    "rescaled",
    "resize",
    "restrict",
    "review",
    "settle",
    "take_over",
    "wires",
    "withdraw",
]
