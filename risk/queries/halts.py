"""Kill switches: who is halted, and the condition that keeps the halted from being sent."""

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.runtime import sql
from risk.domain.scopes import Scope
from risk.models import Halt

HALT_LOCK = 7301
"""Advisory lock: shared by a claim, exclusive while a halt is engaged or released."""

HALT_PREDICATE = """(s.kind = 'cancel' OR NOT EXISTS (
  SELECT 1 FROM risk_halt h
  WHERE h.released_at IS NULL AND CASE WHEN s.reduces
      THEN h.mode = 'halt' AND (o.origin <> 'liquidation' OR h.scope_kind = 'broker') ELSE true END
    AND CASE h.scope_kind
      WHEN 'all' THEN true
      WHEN 'account' THEN h.scope_key = a.code
      WHEN 'broker' THEN h.scope_key = b.code
      WHEN 'symbol' THEN h.scope_key = i.symbol
      WHEN 'strategy' THEN h.scope_key = st.code
      WHEN 'user' THEN h.scope_key = u.username
      ELSE true END))"""
"""True for a submission that no halt stops; cancels always pass, and what flattens for a liquidation but at a halted
broker; a scope of an unknown kind stops all.

Aliases: s orders_submission, o orders_order, a portfolio_account and i brokers_instrument of its order, b brokers_broker, and
left-joined st portfolio_strategy and u auth_user (the order's maker)."""


@dataclass(frozen=True, slots=True)
class HaltedBrokers:
    """Codes of brokers under a halt, and of those under one that lets pass what reduces."""

    full: frozenset[str]
    reduce_only: frozenset[str]

    def for_order(self, *, reduces: bool) -> frozenset[str]:
        """Return the brokers that an order must not be routed to."""
        return self.full if reduces else self.full | self.reduce_only


def halted_brokers() -> HaltedBrokers:
    """Return the brokers that are halted now, for routing; the claim looks again. One statement."""
    found = sql.run(
        "SELECT scope_key, mode FROM risk_halt WHERE scope_kind = 'broker' AND released_at IS NULL"
    ).fetchall()
    full = frozenset(code for code, mode in found if mode == Halt.Mode.HALT)
    return HaltedBrokers(full, frozenset(code for code, _ in found) - full)


def halts(*, engaged: bool | None = None) -> QuerySet[Halt]:
    """Return halts, newest first; only those engaged or only those released if asked."""
    found = Halt.objects.order_by("-id")
    return found if engaged is None else found.filter(released_at__isnull=engaged)


def halt_out(halt: Halt) -> dict[str, Any]:
    """Return a halt in its REST shape."""
    return {
        "id": str(halt.id),
        "scope": Scope(halt.scope_kind, halt.scope_key).as_json(),
        "mode": halt.mode,
        "reason": halt.reason,
        "engaged_by": halt.engaged_by,
        "engaged_at": rfc3339(halt.engaged_at),
        "released_by": halt.released_by or None,
        "released_at": rfc3339_or_none(halt.released_at),
        "release_reason": halt.release_reason or None,
    }
