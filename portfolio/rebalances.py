"""Reads of rebalances, model portfolios and the rules of accounts."""

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Prefetch, QuerySet

from brokers import queries as market
from oms.kernel.decimals import EXACT, ZERO, text, text_or_none
from oms.kernel.errors import NotFound
from oms.kernel.json import rfc3339, rfc3339_or_none
from portfolio.models import Account, ModelPortfolio, Rebalance, RebalanceLine, RebalancePart, RebalanceRule

TWO = Decimal(2)


def rebalances(visible: QuerySet[Account]) -> QuerySet[Rebalance]:
    """Return the rebalances all of whose accounts are among those visible, newest first."""
    unseen = RebalancePart.objects.exclude(account__in=visible).values("rebalance_id")
    parts = RebalancePart.objects.select_related("account").order_by("account__code")
    found = Rebalance.objects.exclude(id__in=unseen).select_related("maker", "approver")
    return found.prefetch_related(Prefetch("parts", parts)).order_by("-id")


def find_rebalance(visible: QuerySet[Account], rebalance_id: UUID) -> Rebalance:
    """Return one, or raise `NotFound`."""
    found = rebalances(visible).filter(pk=rebalance_id).first()
    if found is None:
        raise NotFound("not_found", "There is no such rebalance.")
    return found


def rebalance_out(rebalance: Rebalance, *, lines: bool = True) -> dict[str, Any]:
    """Return a rebalance in its REST shape; lists leave its lines out."""
    parts = list(rebalance.parts.all())
    rows = list(RebalanceLine.objects.filter(rebalance=rebalance).order_by("number")) if lines else []
    told = {
        "id": str(rebalance.pk),
        "status": rebalance.status,
        "account": parts[0].account.code if len(parts) == 1 else None,
        "accounts": [_part_out(p, [r for r in rows if r.account_id == p.account_id]) for p in parts],
        "method": rebalance.method,
        "targets": rebalance.targets,
        "options": rebalance.options,
        "content_hash": rebalance.content_hash,
        "second_person": rebalance.second_person,
        "maker": rebalance.maker.get_username() if rebalance.maker else None,
        "approver": rebalance.approver.get_username() if rebalance.approver else None,
        "reason": rebalance.reason or None,
        "due_on": rebalance.due_on.isoformat() if rebalance.due_on else None,
        "created_at": rfc3339(rebalance.created_at),
        "approved_at": rfc3339_or_none(rebalance.approved_at),
        "executed_at": rfc3339_or_none(rebalance.executed_at),
        "ended_at": rfc3339_or_none(rebalance.ended_at),
    }
    return (
        {**told, "lines": [_line_out(r, {p.account_id: p.account.code for p in parts}) for r in rows]}
        if lines
        else told
    )


def _part_out(part: RebalancePart, lines: list[RebalanceLine]) -> dict[str, Any]:
    return {
        "account": part.account.code,
        "currency": part.account.base_currency,
        "equity": text(part.equity),
        "cash_before": text(part.cash_before),
        "cash_after": text(part.cash_after),
        "cost": text(part.cost),
        "tax": text(part.tax),
        "turnover": text(part.turnover),
        "active_share_before": text(_active_share(lines, "weight_before")) if lines else None,
        "active_share_after": text(_active_share(lines, "weight_after")) if lines else None,
        "tracking_error_before": text_or_none(part.tracking_error_before),
        "tracking_error_after": text_or_none(part.tracking_error_after),
        "notes": part.notes,
    }


def _active_share(lines: list[RebalanceLine], name: str) -> Decimal:
    """Return half of what weights, cash among them, lie from their targets: 0 as wanted, 1 with nothing as wanted."""
    by_instrument = {r.instrument_id: (getattr(r, name), r.weight_target) for r in lines}
    apart = sum((abs(w - t) for w, t in by_instrument.values()), ZERO)
    cash = abs(sum((w - t for w, t in by_instrument.values()), ZERO))
    return EXACT.divide(apart + cash, TWO)


def _line_out(line: RebalanceLine, codes: dict[int, str]) -> dict[str, Any]:
    return {
        "number": line.number,
        "account": codes[line.account_id],
        "symbol": market.instruments()[line.instrument_id].symbol,
        "side": line.side or None,
        "quantity": text(line.quantity),
        "price": text_or_none(line.price),
        "limit_price": text_or_none(line.limit_price),
        "quantity_before": text(line.quantity_before),
        "weight_before": text(line.weight_before),
        "weight_target": text(line.weight_target),
        "weight_after": text(line.weight_after),
        "value": text(line.value),
        "cost": text(line.cost),
        "tax": text(line.tax),
        "sales": line.sales or [],
        "skipped": line.skipped or None,
        "order": str(line.order_id) if line.order_id else None,
        "placed_quantity": text_or_none(line.placed_quantity),
        "filled_quantity": text(line.filled_quantity),
        "outcome": line.outcome or None,
    }


def find_model(code: str) -> ModelPortfolio:
    """Return a model portfolio, or raise `NotFound`."""
    found = ModelPortfolio.objects.filter(code=code).first()
    if found is None:
        raise NotFound("not_found", "There is no such model portfolio.")
    return found


def model_out(model: ModelPortfolio) -> dict[str, Any]:
    """Return a model portfolio in its REST shape."""
    return {"code": model.code, "name": model.name, "targets": model.targets}


def rule_out(rule: RebalanceRule) -> dict[str, Any]:
    """Return the rule of an account in its REST shape."""
    return {
        "account": rule.account.code,
        "model": rule.model.code if rule.model else None,
        "options": rule.options,
        "every": rule.every,
        "next_on": rule.next_on.isoformat() if rule.next_on else None,
        "second_person": rule.second_person,
    }


def rules_to_look_at(day: date) -> list[RebalanceRule]:
    """Return the rules with a model portfolio whose day has come, and those that act when a band is left; by account."""
    rules = RebalanceRule.objects.filter(account__status=Account.Status.OPEN, model__isnull=False)
    found = rules.select_related("account", "model").order_by("account__code")
    return [r for r in found if r.every == RebalanceRule.Every.NEVER or (r.next_on is not None and r.next_on <= day)]
