"""Writes of what rebalances go by: model portfolios, rules of accounts, risk models."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from brokers import queries as market
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Invalid, InvalidFields
from oms.runtime import sql
from oms.runtime.transactions import in_transaction, require_transaction
from portfolio.domain.options import parse_options
from portfolio.domain.targets import parse_targets, renamed
from portfolio.domain.tracking import judge
from portfolio.models import Account, ModelPortfolio, RebalanceRule, RiskLoading, RiskModel

FACTORS_MAX = 500


@in_transaction
def set_model(*, code: str, name: str, targets: Mapping[str, Any], actor: Actor, at: datetime) -> ModelPortfolio:
    """Keep target weights under a code, new or known. Raises `InvalidFields` for what can't be read or is unknown."""
    read, symbols = parse_targets(targets), market.instruments_by_symbol()
    unknown = [
        Invalid("unknown_symbol", "No such instrument.", field=f"targets.{s}")
        for s in sorted(read.weights)
        if s not in symbols
    ]
    if unknown:
        raise InvalidFields(unknown)
    before = ModelPortfolio.objects.filter(code=code).first()
    model, _ = ModelPortfolio.objects.update_or_create(code=code, defaults={"name": name, "targets": dict(targets)})
    data = {"model": code, "targets": dict(targets), "before": before.targets if before else None}
    _tell("model_portfolio.set", code, data, actor=actor, at=at)
    return model


def retarget(old: str, new: str, *, actor: Actor, at: datetime) -> list[str]:
    """Let targets name another symbol where one took the place of another; return the models that changed.

    A part of the operation that changes the symbol, in its transaction.
    """
    require_transaction()
    changed = []
    for model in ModelPortfolio.objects.select_for_update().order_by("code"):
        targets = renamed(model.targets, old, new)
        if targets != model.targets:
            model.targets = targets
            model.save(update_fields=["targets"])
            changed.append(model.code)
            _tell("model_portfolio.retargeted", model.code, {"before": old, "after": new}, actor=actor, at=at)
    return changed


@in_transaction
def set_rule(
    *,
    account: Account,
    model: ModelPortfolio | None,
    options: Mapping[str, Any],
    every: str,
    next_on: date | None,
    second_person: bool,
    actor: Actor,
    at: datetime,
) -> RebalanceRule:
    """Set how an account is kept at a model portfolio. Raises `Invalid` for a calendar without a day."""
    parse_options(options)
    if every != RebalanceRule.Every.NEVER and next_on is None:
        raise Invalid("required", "A calendar needs the day it begins on.", field="next_on")
    values = {
        "model": model,
        "options": dict(options),
        "every": every,
        "next_on": next_on,
        "second_person": second_person,
    }
    rule, _ = RebalanceRule.objects.update_or_create(account=account, defaults=values)
    data = {
        "account": account.code, "model": model.code if model else None, "options": dict(options), "every": every,
        "next_on": next_on.isoformat() if next_on else None, "second_person": second_person,
    }  # fmt: skip
    _tell("rebalance.rule_set", account.code, data, actor=actor, at=at)
    return rule


@in_transaction
def load_risk_model(
    *,
    code: str,
    as_of: date,
    factors: Sequence[str],
    covariance: list[list[float]],
    instruments: Mapping[str, Mapping[str, Any]],
    actor: Actor,
    at: datetime,
) -> RiskModel:
    """Keep a factor model of returns, in place of one of the same code and day. `instruments` has loadings and a
    specific_variance by symbol. Raises `Invalid` for a model that can't be used."""
    symbols = market.instruments_by_symbol()
    if unknown := sorted(set(instruments) - symbols.keys())[:5]:
        raise Invalid("unknown_symbol", f"No such instruments: {', '.join(unknown)}.", field="instruments")
    try:
        judge(covariance, [row.get("loadings") for row in instruments.values()])
        variances = {s: float(row["specific_variance"]) for s, row in instruments.items()}
        if len(factors) != len(covariance) or len(factors) > FACTORS_MAX or any(not v >= 0 for v in variances.values()):
            raise ValueError("every factor has a name, and a variance is zero or more")
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid("not_a_risk_model", f"This can't be used: {error}.", field="covariance") from error
    RiskModel.objects.filter(code=code, as_of=as_of).delete()
    model = RiskModel.objects.create(code=code, as_of=as_of, factors=list(factors), covariance=covariance)
    rows = [
        RiskLoading(model=model, instrument_id=symbols[s].id, loadings=row["loadings"], specific_variance=variances[s])
        for s, row in instruments.items()
    ]
    sql.insert(rows)
    _tell("risk_model.loaded", code, {"as_of": as_of.isoformat(), "instruments": len(rows)}, actor=actor, at=at)
    return model


def _tell(kind: str, about: str, data: Mapping[str, Any], *, actor: Actor, at: datetime) -> None:
    journal.append([Entry(SYSTEM_STREAM, kind, about, json.dumps({"data": data}))], actor=actor, at=at)
