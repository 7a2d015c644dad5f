"""Sums over accounts, for limits that bind them: locked before they are read, so that nobody passes on the same headroom.

The locks are advisory, for a scope and a kind, of an instrument where the kind looks at one alone. They are taken after
the accounts' and in one order, and last until the commit; only orders that such a limit binds take any.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from oms.runtime import sql
from risk.domain.aggregates import BY_INSTRUMENT, Sum, Total
from risk.domain.intents import Intent
from risk.domain.limits import LimitRef
from risk.domain.scopes import Scope, scopes_of

SUMS_LOCK = 7305
"""Class of the advisory locks; the other half of the key is a hash of what is summed."""
ALL = 0


def load_sums(
    limits: Sequence[LimitRef], intents: Sequence[Intent], *, locking: bool, whole: bool = False
) -> dict[Scope, Sum]:
    """Lock what the limits sum up as far as the orders are bound by it, then read it: two statements, and two for each scope.

    Of kinds that look at one instrument alone only those of the orders are read, unless the `whole` is asked for.
    """
    bound = [(x, i.instrument.id) for i in intents for x in limits if x.binds in scopes_of(i)]
    if locking and bound:
        keys = sorted({(str(x.scope), x.kind, pk if x.kind in BY_INSTRUMENT else ALL) for x, pk in bound})
        # A statement of its own: the next one's snapshot is then younger than the locks, and sees what they waited for.
        sql.run(
            "SELECT pg_advisory_xact_lock(%s, hashtext(k)) FROM (SELECT k FROM unnest(%s::text[]) k ORDER BY hashtext(k)) asked",
            [SUMS_LOCK, [f"{scope}/{kind}/{pk}" for scope, kind, pk in keys]],
        ).fetchall()
    instruments = sorted({i.instrument.id for i in intents})
    found = {}
    for scope in dict.fromkeys(x.scope for x in limits):
        kinds = {x.kind for x in limits if x.scope == scope}
        found[scope] = _load(scope, kinds, None if whole or kinds - BY_INSTRUMENT - {"open_orders"} else instruments)
    return found


_HELD = """
WITH asked AS (SELECT %(instruments)s::bigint[] AS instruments),
{among}
held AS (
  SELECT account_id, instrument_id, sum(quantity) AS quantity, sum(buying) AS buying, sum(selling) AS selling
  FROM ({rows}) r, asked WHERE asked.instruments IS NULL OR instrument_id = ANY(asked.instruments)
  GROUP BY account_id, instrument_id
)
SELECT instrument_id, sum(quantity), sum(buying), sum(selling), sum(abs(quantity)),
  sum(greatest(abs(quantity), quantity + buying, selling - quantity))
FROM held GROUP BY instrument_id
"""
_ROWS = """
  SELECT p.account_id, p.instrument_id, p.quantity, 0 AS buying, 0 AS selling FROM portfolio_position p
  WHERE p.quantity <> 0 AND {p}
  UNION ALL
  SELECT e.account_id, e.instrument_id, 0, e.buying, e.selling FROM risk_exposure e WHERE e.buying + e.selling > 0 AND {e}"""
_OF_STRATEGIES = """
  SELECT l.account_id, l.instrument_id, l.remaining AS quantity, 0 AS buying, 0 AS selling
  FROM portfolio_lot l JOIN portfolio_trade t ON t.id = l.trade_id
  WHERE l.remaining <> 0 AND t.strategy_id IN (SELECT id FROM chosen)
  UNION ALL
  SELECT account_id, instrument_id, 0, coalesce(max(open_quantity) FILTER (WHERE side = 'buy'), 0),
    coalesce(max(open_quantity) FILTER (WHERE side <> 'buy'), 0)
  FROM risk_hold WHERE open_quantity > 0 AND strategy_id IN (SELECT id FROM chosen)
  GROUP BY account_id, instrument_id, coalesce(oco, id)"""
_OPEN = """
WITH {among} x AS (SELECT 1)
SELECT count(*) FROM risk_hold h WHERE h.open_quantity > 0 AND {where}
"""
_GRANTED = """chosen AS (
  SELECT g.account_id AS id FROM portfolio_accountgrant g JOIN auth_user u ON u.id = g.user_id WHERE u.username = %(key)s
),"""
_STRATEGY = "chosen AS (SELECT id FROM portfolio_strategy WHERE code = %(key)s),"
_SYMBOL = "chosen AS (SELECT id FROM brokers_instrument WHERE symbol = %(key)s),"
_MEMBERS = """members AS (
  SELECT m.kind, m.key FROM risk_groupmember m JOIN risk_group g ON g.id = m.group_id WHERE g.code = %(key)s
), accounts AS (
  SELECT a.id FROM portfolio_account a JOIN members m ON m.kind = 'account' AND m.key = a.code
  UNION SELECT g.account_id FROM portfolio_accountgrant g JOIN auth_user u ON u.id = g.user_id
  JOIN members m ON m.kind = 'user' AND m.key = u.username
), instruments AS (
  SELECT i.id FROM brokers_instrument i JOIN members m ON (m.kind, m.key)
    IN (('symbol', i.symbol), ('asset_class', i.asset_class), ('sector', i.sector))
), """
_IN_GROUP = """({row}.account_id IN (SELECT id FROM accounts) OR {row}.instrument_id IN (SELECT id FROM instruments)
  OR EXISTS (SELECT 1 FROM members WHERE kind = 'strategy'))"""
"""A group with strategies among others counts everything: rather too much than too little."""
_OF_GROUPED_STRATEGIES = """members AS (
  SELECT m.kind, m.key FROM risk_groupmember m JOIN risk_group g ON g.id = m.group_id WHERE g.code = %(key)s
), chosen AS (SELECT s.id FROM portfolio_strategy s JOIN members m ON m.key = s.code),"""


def _parts(scope: Scope) -> tuple[str, str, str]:
    """Return the common table expressions, the rows, and the condition on holds that make up a scope."""
    if scope.kind == "firm":
        return "", _ROWS.format(p="true", e="true"), "true"
    if scope.kind == "user":
        condition = "{row}.account_id IN (SELECT id FROM chosen)"
        return _GRANTED, _rows(condition), condition.format(row="h")
    if scope.kind == "symbol":
        condition = "{row}.instrument_id IN (SELECT id FROM chosen)"
        return _SYMBOL, _rows(condition), condition.format(row="h")
    strategies = "h.strategy_id IN (SELECT id FROM chosen)"
    if scope.kind == "strategy":
        return _STRATEGY, _OF_STRATEGIES, strategies
    if _member_kinds(scope.key) == {"strategy"}:
        return _OF_GROUPED_STRATEGIES, _OF_STRATEGIES, strategies
    return _MEMBERS, _rows(_IN_GROUP), _IN_GROUP.format(row="h")


def _rows(condition: str) -> str:
    return _ROWS.format(p=condition.format(row="p"), e=condition.format(row="e"))


def _member_kinds(group: str) -> set[str]:
    found = sql.run(
        "SELECT DISTINCT m.kind FROM risk_groupmember m JOIN risk_group g ON g.id = m.group_id WHERE g.code = %s",
        [group],
    )
    return {kind for (kind,) in found}


def _load(scope: Scope, kinds: set[str], instruments: Sequence[int] | None) -> Sum:
    among, rows, where = _parts(scope)
    told: Mapping[str, Any] = {"key": scope.key, "instruments": None if instruments is None else list(instruments)}
    held: Iterable[tuple[int, Decimal, Decimal, Decimal, Decimal, Decimal]] = ()
    if kinds - {"open_orders"}:
        held = sql.run(_HELD.format(among=among, rows=rows), told)
    summed = Sum({pk: Total(*units) for pk, *units in held})
    if "open_orders" in kinds:
        [(summed.open_orders,)] = sql.run(_OPEN.format(among=among, where=where), told).fetchall()
    return summed
