"""Reads of risk: what a batch is judged by, limits and approvals, halts, and what is held."""

from risk.queries.approvals import approval_out, approvals, content_hash
from risk.queries.exposure import balances_out, exposure_out
from risk.queries.halts import HALT_LOCK, HALT_PREDICATE, halt_out, halts
from risk.queries.limits import limit_out, limits
from risk.queries.loading import load_facts

__all__ = [
    "HALT_LOCK",
    "HALT_PREDICATE",
    "approval_out",
    "approvals",
    "balances_out",
    "content_hash",
    "exposure_out",
    "halt_out",
    "halts",
    "limit_out",
    "limits",
    "load_facts",
]
