"""Letting a strategy go on that sent as many automated orders as it may."""

from datetime import datetime
from typing import Any

from oms.journal import operations as journal
from oms.journal.domain import Entry, account_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO, text
from oms.kernel.errors import Conflict, Forbidden, Invalid
from oms.runtime.transactions import in_transaction
from portfolio.models import Account, Strategy
from risk.models import Limit, Pace


@in_transaction
def enable_strategy(account: str, strategy: str, *, reason: str, actor: Actor, at: datetime) -> dict[str, Any]:
    """Begin a strategy's count of automated orders in an account anew, as a named person; return what was counted.

    Raises `Invalid` (unknown_account, unknown_strategy, required), `Forbidden` (not_a_person), `Conflict` (nothing_counted).
    """
    if actor.user_id is None:
        raise Forbidden("not_a_person", "A strategy is enabled again by a named user of the desk.")
    if not reason.strip():
        raise Invalid("required", "Say why.", field="reason")
    owner = Account.objects.select_for_update(no_key=True).filter(code=account).first()
    if owner is None:
        raise Invalid("unknown_account", "There is no such account.", field="account")
    if not Strategy.objects.filter(code=strategy).exists():
        raise Invalid("unknown_strategy", "There is no such strategy.", field="strategy")
    pace = Pace.objects.filter(
        account=owner, kind=Limit.Kind.AUTOMATED_RUNS, scope_kind="strategy", scope_key=strategy
    ).first()
    if pace is None or pace.level == 0:
        raise Conflict("nothing_counted", "No automated order was counted for this strategy; it is enabled.")
    told = {"account": account, "strategy": strategy, "counted": text(pace.level), "reason": reason.strip()[:200]}
    pace.level, pace.at = ZERO, at
    pace.save(update_fields=["level", "at"])
    body = json.dumps({"data": told})
    journal.append([Entry(account_stream(account), "strategy.enabled", strategy, body, "risk")], actor=actor, at=at)
    return told
