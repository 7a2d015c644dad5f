"""Rules of accounts, which a second person approves, and units located for short sales."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers.models import Instrument
from oms.journal import operations as journal
from oms.journal.domain import Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.kernel.ids import uuid7
from oms.runtime.constraints import refine
from oms.runtime.transactions import in_transaction
from portfolio.models import Account
from risk.domain.rules import CASH, HAIRCUT, MARGINS, REG_T, SELF_TRADE_MODES, parse_haircuts
from risk.models import AccountRules, Approval, Locate
from risk.operations.approving import ask, content_hash, settle
from risk.queries.rules import locate_out, rules_out


@in_transaction
def propose_rules(
    account: str,
    *,
    margin: str = "house",
    borrowing: bool = False,
    haircuts: Mapping[str, object] | None = None,
    settled_only: bool = False,
    locates: bool = False,
    day_trading: bool = False,
    migrated_on: date | None = None,
    self_trade: str | None = None,
    since: date | None = None,
    reason: str,
    actor: Actor,
    at: datetime,
) -> AccountRules:
    """Store rules of an account, which hold from a UTC day on (today unless told) once another person of risk approves.

    They take the place of all rules before them. Raises `Invalid` for what doesn't exist or doesn't go together.
    """
    owner = Account.objects.filter(code=account).first()
    if owner is None:
        raise Invalid("unknown_account", "There is no such account.", field="account")
    if not reason.strip():
        raise Invalid("required", "Say why.", field="reason")
    fractions = parse_haircuts(haircuts or {})
    _require_sound(margin, self_trade or "", borrowing, fractions, day_trading, migrated_on)
    rules = AccountRules(
        id=uuid7(),
        account=owner,
        since=max(since or at.date(), at.date()),
        margin=margin,
        borrowing=borrowing,
        haircuts={name: decimals.text(value) for name, value in fractions.items()},
        settled_only=settled_only,
        locates=locates,
        day_trading=day_trading,
        migrated_on=migrated_on,
        self_trade=self_trade or "",
        reason=reason.strip()[:200],
        maker_id=actor.user_id,
        created_at=at,
    )
    rules.save(force_insert=True)
    ask(Approval.Kind.RULES, rules.id, "activate", _content(rules), actor=actor, at=at, account=owner)
    _tell(rules, "rules.proposed", actor=actor, at=at)
    return rules


def _require_sound(
    margin: str,
    self_trade: str,
    borrowing: bool,
    haircuts: Mapping[str, Decimal],
    day_trading: bool,
    migrated_on: date | None,
) -> None:
    if margin not in MARGINS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(MARGINS)}.", field="margin")
    if self_trade and self_trade not in SELF_TRADE_MODES:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(SELF_TRADE_MODES)}.", field="self_trade")
    if borrowing and margin != CASH:
        raise Invalid("not_allowed", "Only a cash account borrows by a rule of its own.", field="borrowing")
    if bool(haircuts) != (margin == HAIRCUT):
        raise Invalid("not_allowed", "Haircuts go with the haircut model, at least one.", field="haircuts")
    if unknown := set(haircuts) - set(Instrument.AssetClass.values):
        raise Invalid("unknown_asset_class", f"There is no asset class {min(unknown)}.", field="haircuts")
    if day_trading and margin != REG_T:
        raise Invalid("not_allowed", "Day trading is a rule of Reg T accounts.", field="day_trading")
    if migrated_on and not day_trading:
        raise Invalid(
            "not_allowed", "Only an account that may day-trade moves to intraday margin.", field="migrated_on"
        )


@in_transaction
def decide_rules(
    object_id: UUID, decision: str, *, reason: str, actor: Actor, at: datetime, content: str = ""
) -> AccountRules:
    """Approve or refuse rules, as another person than their maker; `content` is the hash that was seen.

    Raises `NotFound`, and what `settle` raises.
    """
    rules = AccountRules.objects.select_related("account", "maker").filter(pk=object_id).first()
    asked = Approval.objects.filter(object_id=object_id).order_by("-id").first()
    if rules is None or asked is None:
        raise NotFound("not_found", "Nothing with this id waits for an approval.")
    Account.objects.select_for_update(no_key=True).get(pk=rules.account_id)  # no order is judged half by old rules
    settle(asked.id, decision, reason=reason, actor=actor, at=at, seen=content, shown=content_hash(_content(rules)))
    approved = decision == "approve"
    rules.status = AccountRules.Status.ACTIVE if approved else AccountRules.Status.REFUSED
    rules.approver_id = actor.user_id
    rules.since = max(rules.since, at.date()) if approved else rules.since  # what was approved late holds from then on
    rules.save()
    _tell(rules, f"rules.{'activated' if approved else 'refused'}", actor=actor, at=at)
    return rules


def _content(rules: AccountRules) -> dict[str, Any]:
    return {k: v for k, v in rules_out(rules).items() if k not in ("status", "approver")}


def _tell(rules: AccountRules, kind: str, *, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": rules_out(rules)})
    journal.append([Entry(account_stream(rules.account.code), kind, str(rules.id), body, "risk")], actor=actor, at=at)


@in_transaction
def locate(
    account: str,
    symbol: str,
    quantity: Decimal,
    *,
    lender: str,
    reference: str,
    day: date | None = None,
    actor: Actor,
    at: datetime,
) -> Locate:
    """Record units that a lender found for an account's short sales of a UTC day, today unless told.

    Once for each lender's reference: a repeat with the same terms answers with the first. Raises `Invalid`, and
    `Conflict` (locate_known) for a reference that was used for something else.
    """
    owner = Account.objects.filter(code=account).first()
    instrument = Instrument.objects.filter(symbol=symbol, active=True).first()
    if owner is None:
        raise Invalid("unknown_account", "There is no such account.", field="account")
    if instrument is None:
        raise Invalid("unknown_symbol", "There is no such instrument.", field="symbol")
    if not 0 < quantity < decimals.BOUND:
        raise Invalid("not_positive", "The value must be above zero.", field="quantity")
    on = day or at.date()
    if on < at.date():
        raise Invalid("out_of_range", "That day is over.", field="day")
    wanted = (owner.pk, instrument.pk, quantity, on)
    known = Locate.objects.filter(lender=lender, reference=reference).select_related("account", "instrument").first()
    if known is not None:
        if (known.account_id, known.instrument_id, known.quantity, known.day) != wanted:
            raise Conflict("locate_known", "This reference was used for another locate.")
        return known
    row = Locate(
        id=uuid7(),
        account=owner,
        instrument=instrument,
        quantity=quantity,
        day=on,
        lender=lender,
        reference=reference,
        made_by=actor.name,
        created_at=at,
    )
    with refine(locate_reference_unique=Conflict("locate_known", "This reference was used at the same moment.")):
        row.save(force_insert=True)
    body = json.dumps({"data": locate_out(row)})
    journal.append([Entry(account_stream(account), "locate.recorded", str(row.id), body, "risk")], actor=actor, at=at)
    return row
