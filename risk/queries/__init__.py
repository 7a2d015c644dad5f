"""Reads of risk: what a batch is judged by, limits and approvals, halts, and what is held."""

from risk.queries.approvals import DECIDED_BY, approval_out, approvals, approvals_of_status, find_approval
from risk.queries.compliance import breach_out, compliance_rule_out, drop_copy, forget_rules
from risk.queries.exposure import balances_out, exposure_out, order_ceiling
from risk.queries.halts import HALT_LOCK, HALT_PREDICATE, halt_out, halted_brokers, halts
from risk.queries.headroom import headroom_out, matrix_out, stress_out
from risk.queries.limits import limit_out, limits
from risk.queries.loading import load_facts
from risk.queries.restricted import restricted_instruments
from risk.queries.rules import locate_out, rules_out
from risk.queries.sight import in_sight
from risk.queries.verdicts import replay_verdicts

__all__ = [
    "DECIDED_BY",
    "HALT_LOCK",
    "HALT_PREDICATE",
    "approval_out",
    "approvals",
    "approvals_of_status",
    "balances_out",
    "breach_out",
    "compliance_rule_out",
    "drop_copy",
    "exposure_out",
    "find_approval",
    "forget_rules",
    "halt_out",
    "halted_brokers",
    "halts",
    "headroom_out",
    "in_sight",
    "limit_out",
    "limits",
    "load_facts",
    "locate_out",
    "matrix_out",
    "order_ceiling",
    "replay_verdicts",
    "restricted_instruments",
    "rules_out",
    "stress_out",
]
