"""Compliance: rules that a second person approves, breaches with what came of them, and the look at the end of a day."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction

from brokers import queries as brokers
from brokers.domain.reference import InstrumentRef
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.decimals import BOUND
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from portfolio.models import Account
from risk.domain.compliance import CONTEXTS, END_OF_DAY, KINDS, SEVERITIES, Compliance, Found, Held, RuleRef, rule_of
from risk.domain.gate import Gate
from risk.domain.intents import Intent, Verdict
from risk.domain.scopes import Scope
from risk.models import Approval, ComplianceBreach, ComplianceRule
from risk.operations.approving import ask, content_hash, settle
from risk.operations.naming import require_known
from risk.queries.compliance import breach_out, compliance_rule_out, forget_rules, rules_in_force
from risk.queries.exposure import gates

SCOPES = ("firm", "account", "user", "strategy")
FIGURE_MAX = BOUND - 1
DISPOSITIONS = ("corrected", "accepted", "reported")


@in_transaction
def propose_compliance_rule(
    code: str,
    kind: str,
    parameters: Mapping[str, Any],
    *,
    scope: Scope,
    context: str,
    severity: str,
    source: str,
    clause: str,
    effective_from: date,
    effective_to: date | None = None,
    reason: str,
    actor: Actor,
    at: datetime,
) -> ComplianceRule:
    """Store a rule, which holds on its days once another person of risk approves; then the one of its code before it is retired.

    Raises `Invalid` for parameters the kind doesn't have, for a context it isn't judged in, and for what doesn't exist.
    """
    rule_of(kind, parameters)
    if context not in CONTEXTS or context not in KINDS[kind].contexts:
        raise Invalid("not_a_choice", f"This kind is judged in: {', '.join(KINDS[kind].contexts)}.", field="context")
    if severity not in SEVERITIES:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(SEVERITIES)}.", field="severity")
    if scope.kind not in SCOPES or (context == END_OF_DAY and scope.kind not in ("firm", "account")):
        raise Invalid("not_a_scope", "An order's rule binds the firm, an account, a user or a strategy; a day's the first two.", field="scope")  # fmt: skip
    if effective_to is not None and effective_to < effective_from:
        raise Invalid("out_of_range", "The last day lies before the first.", field="effective_to")
    for name, text in (("code", code), ("source", source), ("clause", clause), ("reason", reason)):
        if not text.strip():
            raise Invalid("required", "This field is required.", field=name)
    require_known(scope)
    rule = ComplianceRule(
        id=uuid7(), code=code.strip(), kind=kind, parameters=dict(parameters), scope_kind=scope.kind, scope_key=scope.key,
        context=context, severity=severity, source=source.strip(), clause=clause.strip(), effective_from=effective_from,
        effective_to=effective_to, reason=reason.strip()[:200], maker_id=actor.user_id, created_at=at,
    )  # fmt: skip
    rule.save(force_insert=True)
    ask(Approval.Kind.COMPLIANCE, rule.id, "activate", _content(rule), actor=actor, at=at)
    _tell(rule, "compliance.proposed", actor=actor, at=at)
    return rule


@in_transaction
def decide_compliance_rule(
    object_id: UUID, decision: str, *, reason: str, actor: Actor, at: datetime, content: str = ""
) -> ComplianceRule:
    """Approve or refuse a rule, as another person than its maker. Raises `NotFound`, and what `settle` raises."""
    rule = ComplianceRule.objects.select_for_update(no_key=True, of=("self",)).filter(pk=object_id).first()
    asked = Approval.objects.filter(object_id=object_id).order_by("-id").first()
    if rule is None or asked is None:
        raise NotFound("not_found", "Nothing with this id waits for an approval.")
    settle(asked.id, decision, reason=reason, actor=actor, at=at, seen=content, shown=content_hash(_content(rule)))
    if decision == "approve":
        same = ComplianceRule.objects.filter(code=rule.code, context=rule.context, status=ComplianceRule.Status.ACTIVE)
        for before in same:
            before.status = ComplianceRule.Status.RETIRED
            before.save()
    rule.status = ComplianceRule.Status.ACTIVE if decision == "approve" else ComplianceRule.Status.REFUSED
    rule.approver_id = actor.user_id
    rule.save()
    _tell(rule, f"compliance.{rule.status}", actor=actor, at=at)
    forget_rules()
    return rule


def _content(rule: ComplianceRule) -> dict[str, Any]:
    return {k: v for k, v in compliance_rule_out(rule).items() if k not in ("status", "approver")}


def _tell(rule: ComplianceRule, kind: str, *, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": compliance_rule_out(rule)})
    journal.append([Entry(SYSTEM_STREAM, kind, str(rule.id), body)], actor=actor, at=at)


def note_breaches(gate: Gate, intents: Sequence[Intent], verdicts: Sequence[Verdict], *, at: datetime) -> None:
    """Store what orders passed of the rules, in the transaction that judges them: prevented where they were denied for it."""
    by_code = {ref.code: ref for ref in gate.facts.compliance}
    rows = []
    for intent, verdict in zip(intents, verdicts, strict=True):
        for row in verdict.checks:
            if row["check"] != Compliance.name:
                continue
            numbers = row["numbers"]
            figure = None if numbers["figure"] is None else Decimal(numbers["figure"])
            if figure is None or figure > Decimal(numbers["limit"]):
                prevented = not verdict.approved and verdict.reason == row["reason"]
                found = Found(figure, Decimal(numbers["limit"]), intent.instrument.id)
                rows.append(
                    _breach(by_code[numbers["rule"]], intent.account_id, found, at, intent, prevented=prevented)
                )
    sql.insert(rows)


def _breach(
    ref: RuleRef, account_id: int, found: Found, at: datetime, intent: Intent | None = None, *, prevented: bool = False
) -> ComplianceBreach:
    return ComplianceBreach(
        id=uuid7(), rule_id=ref.id, account_id=account_id, instrument_id=found.instrument_id,
        order_id=intent.order_id if intent else None, day=at.date(),
        figure=None if found.figure is None else min(found.figure, FIGURE_MAX), limit=found.limit,
        disposition="prevented" if prevented else "open", created_at=at,
    )  # fmt: skip


@in_transaction
def review(day: date, *, actor: Actor, at: datetime, store: bool = True) -> list[ComplianceBreach]:
    """Judge what every account holds by the rules of a day's end, and store what passes them; return the day's breaches.

    Safe to run again: a breach of a rule by an account is stored once a day. Without `store` nothing stays.
    """
    if day > at.date():
        raise Invalid("out_of_range", "That day has not come yet.", field="date")
    refs = rules_in_force(day, END_OF_DAY)
    accounts = list(Account.objects.order_by("id")) if refs else []
    new = []
    for account, gate, _ in gates(accounts, at):
        held = _held(gate, account)
        for ref in refs:
            if ref.binds in (("firm", ""), ("account", account.code)):
                new += [_breach(ref, account.pk, found, at) for found in ref.rule.after(held)]
    for breach in new:
        breach.day = day
    stored = ComplianceBreach.objects.bulk_create(new, ignore_conflicts=True) if new else []
    of_day = ComplianceBreach.objects.filter(day=day, order_id=None).select_related("rule", "account", "instrument")
    entries = [
        Entry(
            account_stream(b.account.code),
            "compliance.breached",
            str(b.id),
            json.dumps({"data": breach_out(b)}),
            "risk",
        )
        for b in of_day.filter(id__in=[b.id for b in stored]).order_by("account_id", "id")
    ]
    if entries:
        journal.append(entries, actor=actor, at=at)
    found = list(of_day.order_by("id"))
    transaction.set_rollback(not store)
    return found


def _held(gate: Gate, account: Account) -> Held:
    known = brokers.instruments()
    positions = {
        known[pk]: held.quantity
        for (owner, pk), held in gate.facts.holdings.items()
        if owner == account.pk and held.quantity
    }

    def value(instrument: InstrumentRef, quantity: Decimal) -> Decimal | None:
        return gate.value(instrument.id, quantity, account.base_currency)

    currency = account.base_currency
    return Held(positions, value, gate.equity(account.pk, currency), gate.cash(account.pk, currency))


@in_transaction
def dispose(breach_id: UUID, disposition: str, *, reason: str, actor: Actor, at: datetime) -> ComplianceBreach:
    """Say what came of an open breach. Raises `NotFound`, `Conflict` (already_disposed), `Invalid`."""
    if disposition not in DISPOSITIONS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(DISPOSITIONS)}.", field="disposition")
    if not reason.strip():
        raise Invalid("required", "Say why.", field="reason")
    found = ComplianceBreach.objects.select_for_update(no_key=True, of=("self",)).filter(pk=breach_id)
    breach = found.select_related("rule", "account", "instrument").first()
    if breach is None:
        raise NotFound("not_found", "There is no such breach.")
    if breach.disposition != ComplianceBreach.Disposition.OPEN:
        raise Conflict("already_disposed", f"This breach is {breach.disposition}.")
    breach.disposition, breach.disposed_by, breach.disposed_at = disposition, actor.name, at
    breach.disposition_reason = reason.strip()[:200]
    breach.save(update_fields=["disposition", "disposed_by", "disposed_at", "disposition_reason"])
    body = json.dumps({"data": breach_out(breach)})
    stream = account_stream(breach.account.code)
    journal.append([Entry(stream, "compliance.disposed", str(breach.id), body, "risk")], actor=actor, at=at)
    return breach
