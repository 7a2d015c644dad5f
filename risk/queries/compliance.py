"""Compliance rules in force, breaches, and the drop copy of executions."""

import base64
import binascii
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import msgspec

from oms.journal.domain import account_stream
from oms.kernel import decimals, json
from oms.kernel.errors import Invalid
from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.runtime import sql
from risk.domain.compliance import PRE_TRADE, RuleRef, rule_of
from risk.domain.scopes import Scope
from risk.models import ComplianceBreach, ComplianceRule

CACHE_SECONDS = 1.0
"""Rules are dated and approved beforehand: a second after an approval every process judges by them."""
COPIES_MAX = 500
_cache: dict[date, tuple[float, list[RuleRef]]] = {}


def rules_in_force(on: date, context: str) -> list[RuleRef]:
    """Return the rules of a context that hold on a day."""
    found = sql.run(
        "SELECT id, code, kind, parameters::text, scope_kind, scope_key, context, severity, clause FROM risk_compliancerule "
        "WHERE status = 'active' AND context = %s AND effective_from <= %s AND (effective_to IS NULL OR effective_to >= %s) "
        "ORDER BY id",
        [context, on, on],
    )
    return [
        RuleRef(pk, code, rule_of(kind, json.loads(parameters)), Scope(scope, key), context, severity, clause)
        for pk, code, kind, parameters, scope, key, context, severity, clause in found
    ]


def rules_for_orders(on: date) -> Sequence[RuleRef]:
    """Return the rules that orders of a day are judged by, as this process knew them within the last second."""
    held = _cache.get(on)
    now = time.monotonic()
    if held is None or held[0] < now:
        _cache.clear()
        held = _cache[on] = (now + CACHE_SECONDS, rules_in_force(on, PRE_TRADE))
    return held[1]


def forget_rules() -> None:
    """Drop what this process remembers, for the operation that has just changed it."""
    _cache.clear()


def compliance_rule_out(rule: ComplianceRule) -> dict[str, Any]:
    """Return a rule in its REST shape."""
    return {
        "id": str(rule.id),
        "code": rule.code,
        "kind": rule.kind,
        "parameters": dict(sorted(rule.parameters.items())),
        "scope": Scope(rule.scope_kind, rule.scope_key).as_json(),
        "context": rule.context,
        "severity": rule.severity,
        "source": rule.source,
        "clause": rule.clause,
        "effective_from": rule.effective_from.isoformat(),
        "effective_to": rule.effective_to.isoformat() if rule.effective_to else None,
        "status": rule.status,
        "reason": rule.reason,
        "maker": rule.maker.get_username() if rule.maker else None,
        "approver": rule.approver.get_username() if rule.approver else None,
        "created_at": rfc3339(rule.created_at),
    }


def breach_out(breach: ComplianceBreach) -> dict[str, Any]:
    """Return a breach in its REST shape."""
    return {
        "id": str(breach.id),
        "rule": breach.rule.code,
        "clause": breach.rule.clause,
        "context": breach.rule.context,
        "severity": breach.rule.severity,
        "account": breach.account.code,
        "symbol": breach.instrument.symbol if breach.instrument else None,
        "order": str(breach.order_id) if breach.order_id else None,
        "day": breach.day.isoformat(),
        "figure": decimals.text_or_none(breach.figure),
        "limit": decimals.text(breach.limit),
        "disposition": breach.disposition,
        "disposed_by": breach.disposed_by or None,
        "disposed_at": rfc3339_or_none(breach.disposed_at),
        "disposition_reason": breach.disposition_reason or None,
        "created_at": rfc3339(breach.created_at),
    }


def drop_copy(accounts: Iterable[str], *, since: str = "", limit: int = COPIES_MAX) -> tuple[list[dict[str, Any]], str]:
    """Return executions, busts and corrections of accounts after a cursor, each account's in order and without a gap, and the next cursor.

    They are the frames that screens get, from the journal: booked in the same transaction as the execution. Without a cursor
    from the beginning. Raises `Invalid` for what is no cursor.
    """
    begun = _cursor(since)
    streams = {account_stream(code): code for code in accounts}
    found = sql.run(
        "SELECT s.name, e.sequence, e.body FROM journal_event e JOIN journal_stream s ON s.id = e.stream_id "
        "JOIN unnest(%s::text[], %s::bigint[]) u(name, since) ON u.name = s.name AND e.sequence > u.since "
        "WHERE e.frame = 'execution' ORDER BY e.sequence, s.name LIMIT %s",
        [list(streams), [begun.get(code, 0) for code in streams.values()], limit],
    ).fetchall()
    told = []
    for name, sequence, body in found:
        code = streams[name]
        begun[code] = max(begun.get(code, 0), sequence)
        told.append({"account": code, "seq": sequence, "data": json.loads(body)["data"]})
    return told, _spell(begun)


def _spell(cursor: Mapping[str, int]) -> str:
    return base64.urlsafe_b64encode(json.dump_bytes(dict(sorted(cursor.items())))).decode().rstrip("=")


def _cursor(text: str) -> dict[str, int]:
    if not text:
        return {}
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=dict[str, int])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise Invalid("not_a_cursor", "Send next_since of an earlier answer, or nothing.", field="since") from None
