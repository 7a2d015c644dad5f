"""What must hold of orders at every quiet moment: each predicate returns the rows that break it, so none."""

from orders.domain.groups import FOLLOWS, IN_SET
from orders.states import CLOSED

_CLOSED = ", ".join(f"'{s}'" for s in sorted(CLOSED))
_LIVE = (
    "SELECT e.*, CASE e.side WHEN 'buy' THEN e.quantity ELSE -e.quantity END AS signed FROM orders_execution e "
    "WHERE e.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM orders_execution r WHERE r.ref_id = e.id)"
)


def _told(name: str, *, text: bool = False) -> str:
    """Return SQL for a field of the order that an event's body tells, cut out: reading each whole body takes minutes over
    a million orders. In a text of the body every quote is escaped, so the name can stand in none.
    """
    mark, end = (f',"{name}":"', '"') if text else (f',"{name}":', ",")
    return f"split_part(split_part(e.body, '{mark}', 2), '{end}', 1)"


_IN_SET = ", ".join(f"'{r}'" for r in sorted(IN_SET))
_FOLLOWS = ", ".join(f"'{r}'" for r in sorted(FOLLOWS))
_SETTLED = "(g.due_at IS NULL OR g.due_at < desk_clock() - interval '60 seconds')"
"""A group was looked at since its orders changed, or should have been."""
PREDICATES = {
    "I01 filled quantity of a broker order = its live executions, those before a split in the units after it": f"""
        SELECT c.id FROM orders_childorder c LEFT JOIN ({_LIVE}) e ON e.child_id = c.id
        GROUP BY c.id HAVING c.filled_quantity IS DISTINCT FROM coalesce(sum(
          CASE WHEN e.executed_at < (c.standing->>'split_at')::timestamptz
            THEN round(e.quantity * (c.standing->'split'->>0)::numeric / (c.standing->'split'->>1)::numeric, 10)
            ELSE e.quantity END), 0)""",
    "I02 quantities add up": f"""
        SELECT id FROM orders_order WHERE NOT (filled_quantity >= 0 AND leaves_quantity >= 0 AND (overfilled OR
          CASE WHEN status IN ({_CLOSED}) THEN leaves_quantity = 0
               WHEN status = 'done_for_day' THEN true
               ELSE filled_quantity + leaves_quantity = quantity END)
          AND (status <> 'filled' OR filled_quantity >= quantity))""",
    "I03 an order's fills are its children's, and they never ask for more, but for one lost or refused that lived after all": """
        SELECT o.id FROM orders_order o JOIN (
          SELECT order_id, sum(filled_quantity) AS filled, sum(filled_quantity + leaves_quantity) AS asked,
            bool_or(overfilled) AS overfilled FROM orders_childorder GROUP BY order_id) c ON c.order_id = o.id
        WHERE o.filled_quantity <> c.filled OR (NOT o.overfilled AND NOT c.overfilled AND c.asked > o.quantity
          AND NOT EXISTS (SELECT 1 FROM orders_submission s JOIN orders_childorder k ON k.id = s.child_id
            WHERE k.order_id = o.id AND s.detail LIKE 'resurrected%')
          AND NOT EXISTS (SELECT 1 FROM orders_childorder k
            WHERE k.order_id = o.id AND k.ended_as = 'rejected' AND k.filled_quantity > 0))""",
    "I05 no execution twice": """
        SELECT min(id::text) FROM orders_execution GROUP BY broker_account_id, broker_execution_id HAVING count(*) > 1""",
    "I06 a bust or correction undoes one execution of the same order, once": """
        SELECT r.id FROM orders_execution r LEFT JOIN orders_execution e ON e.id = r.ref_id AND e.order_id = r.order_id
        WHERE r.kind <> 'trade' AND e.id IS NULL
        UNION ALL SELECT ref_id FROM orders_execution WHERE ref_id IS NOT NULL GROUP BY ref_id HAVING count(*) > 1""",
    "I07 an execution has its order's side and its child's order, broker and account": """
        SELECT e.id FROM orders_execution e JOIN orders_childorder c ON c.id = e.child_id JOIN orders_order o ON o.id = c.order_id
        WHERE e.order_id <> o.id OR e.side <> o.side
          OR (e.broker_id, e.broker_account_id) <> (c.broker_id, c.broker_account_id)""",
    "I11 every execution is booked once": """
        SELECT e.id FROM orders_execution e LEFT JOIN portfolio_ledgertransaction t
          ON t.source_kind = 'execution' AND t.source_id = e.id GROUP BY e.id HAVING count(t.id) <> 1
        UNION ALL SELECT t.source_id FROM portfolio_ledgertransaction t
          LEFT JOIN orders_execution e ON e.id = t.source_id WHERE t.source_kind = 'execution' AND e.id IS NULL""",
    "I50 a trade says what its execution says": """
        SELECT t.id FROM portfolio_trade t JOIN orders_execution e ON e.id = t.source_id JOIN orders_order o ON o.id = e.order_id
        WHERE t.source_kind = 'execution' AND (t.kind <> e.kind OR t.ref_id IS DISTINCT FROM e.ref_id OR t.price <> e.price
          OR t.quantity <> CASE e.side WHEN 'buy' THEN e.quantity ELSE -e.quantity END
          OR (t.account_id, t.instrument_id, t.broker_id) <> (o.account_id, o.instrument_id, e.broker_id))""",
    "I15 a hold covers exactly what may still fill": f"""
        SELECT o.id FROM orders_order o
        LEFT JOIN risk_hold h ON h.id = o.id
        LEFT JOIN (SELECT order_id, sum(leaves_quantity) AS working FROM orders_childorder GROUP BY order_id) c
          ON c.order_id = o.id
        WHERE CASE WHEN h.id IS NULL THEN o.status NOT IN ({_CLOSED}, 'held')
          WHEN o.status = 'held' THEN h.open_quantity <> 0
          WHEN h.open_quantity = greatest(o.leaves_quantity, c.working) THEN false
          WHEN h.open_quantity < greatest(o.leaves_quantity, c.working) THEN true
          ELSE NOT EXISTS (SELECT 1 FROM orders_submission s JOIN orders_childorder k ON k.id = s.child_id
            WHERE k.order_id = o.id AND s.kind = 'replace' AND s.resolved_at IS NULL) END""",
    "I32 a held order is at no broker and waits for somebody, or for fills of its parent": f"""
        SELECT o.id FROM orders_order o WHERE o.status = 'held' AND (
          EXISTS (SELECT 1 FROM orders_childorder c WHERE c.order_id = o.id AND c.leaves_quantity > 0)
          OR EXISTS (SELECT 1 FROM risk_hold h WHERE h.id = o.id AND h.open_quantity > 0)
          OR NOT EXISTS (SELECT 1 FROM risk_approval a WHERE a.object_id = o.id AND a.status = 'pending')
          AND NOT EXISTS (SELECT 1 FROM orders_wait w WHERE w.order_id = o.id)
          AND NOT EXISTS (SELECT 1 FROM orders_groupleg l WHERE l.order_id = o.id AND l.role IN ({_FOLLOWS})))""",
    "I40 no order waits for a parent that is closed, once its group was looked at": f"""
        SELECT o.id FROM orders_order o JOIN orders_groupleg l ON l.order_id = o.id JOIN orders_ordergroup g ON g.id = l.group_id
        JOIN orders_order p ON p.id = o.parent_id
        WHERE o.status = 'held' AND l.role IN ({_FOLLOWS}) AND p.status IN ({_CLOSED}) AND {_SETTLED} AND g.problem = ''""",
    "I41 orders of which one cancels the others ask for no more than the others and their parent leave them": f"""
        SELECT o.id FROM orders_order o JOIN orders_groupleg l ON l.order_id = o.id JOIN orders_ordergroup g ON g.id = l.group_id
        LEFT JOIN orders_order p ON p.id = o.parent_id
        CROSS JOIN LATERAL (SELECT coalesce(sum(x.filled_quantity), 0) AS others FROM orders_groupleg m
          JOIN orders_order x ON x.id = m.order_id
          WHERE m.group_id = g.id AND m.role IN ({_IN_SET}) AND m.order_id <> o.id) s
        WHERE l.role IN ({_IN_SET}) AND o.status NOT IN ({_CLOSED}, 'held') AND {_SETTLED} AND o.next_terms IS NULL
          AND o.filled_quantity + o.leaves_quantity > greatest(coalesce(p.filled_quantity, l.quantity) - s.others, o.filled_quantity)
          AND NOT EXISTS (SELECT 1 FROM orders_submission b JOIN orders_childorder c ON c.id = b.child_id
            WHERE c.order_id = o.id AND b.kind <> 'new' AND b.resolved_at IS NULL)""",
    "I42 what was filled of a group beyond what it may is what a person was told": f"""
        SELECT g.id FROM orders_ordergroup g JOIN (
          SELECT l.group_id, sum(o.filled_quantity) FILTER (WHERE l.role IN ({_IN_SET})) AS done,
            coalesce(max(o.filled_quantity) FILTER (WHERE l.role = 'parent'), max(l.quantity) FILTER (WHERE l.role IN ({_IN_SET}))) AS most
          FROM orders_groupleg l JOIN orders_order o ON o.id = l.order_id GROUP BY l.group_id) s ON s.group_id = g.id
        WHERE {_SETTLED} AND g.excess <> greatest(coalesce(s.done - s.most, 0), 0)""",
    "I43 an order's group has its account, and a set in which one cancels the others one symbol": f"""
        SELECT g.id FROM orders_ordergroup g JOIN orders_groupleg l ON l.group_id = g.id JOIN orders_order o ON o.id = l.order_id
        GROUP BY g.id HAVING bool_or(o.account_id <> g.account_id)
          OR count(DISTINCT o.instrument_id) FILTER (WHERE l.role IN ({_IN_SET})) > 1""",
    "I44 an order tells of its place in a group": """
        SELECT o.id FROM orders_order o LEFT JOIN orders_groupleg l ON l.order_id = o.id
        WHERE o.instructions->'group'->>'role' IS DISTINCT FROM l.role""",
    "I16 nothing is at a broker without an intent sent before": """
        SELECT c.id FROM orders_childorder c WHERE c.broker_order_id <> '' AND NOT EXISTS (
          SELECT 1 FROM orders_submission s WHERE s.child_id = c.id AND s.kind = 'new' AND s.sent_at >= s.created_at)""",
    "I17 one id, one intent; one new order in flight": """
        SELECT min(id::text) FROM orders_submission GROUP BY broker_id, client_order_id HAVING count(*) > 1
        UNION ALL SELECT min(id::text) FROM orders_submission WHERE kind = 'new' AND state IN ('sent', 'unknown')
          GROUP BY child_id HAVING count(*) > 1""",
    "I20 nothing stays unanswered for five minutes": """
        SELECT id FROM orders_submission WHERE state IN ('sent', 'unknown') AND sent_at < desk_clock() - interval '5 minutes'""",
    "I21 the last event of an order tells its status": f"""
        SELECT o.id FROM orders_order o LEFT JOIN LATERAL (
          SELECT e.body FROM journal_event e
          WHERE e.object_id = o.id::text AND e.frame = 'order' ORDER BY e.sequence DESC LIMIT 1) e ON true
        WHERE {_told("status", text=True)} IS DISTINCT FROM o.status
          OR {_told("version")} IS DISTINCT FROM o.version::text""",
    "I22 status changes chain": """
        SELECT object_id FROM (
          SELECT e.object_id, p.pair->>0 AS a, lag(p.pair->>1) OVER (PARTITION BY e.object_id ORDER BY e.sequence, p.n) AS before
          FROM journal_event e, jsonb_array_elements(
            ('{"t":' || split_part(e.body, ',"transitions":', 2))::jsonb->'t') WITH ORDINALITY p(pair, n)
          WHERE e.frame = 'order' AND e.body NOT LIKE '%,"transitions":[]%') x
        WHERE before IS NOT NULL AND before <> a""",
    "I24 no due submission older than a minute": """
        SELECT id FROM orders_submission WHERE state = 'prepared' AND due_at < desk_clock() - interval '60 seconds' AND kind <> 'cancel'
          AND broker_id IN (SELECT id FROM brokers_broker WHERE enabled)
          AND NOT EXISTS (SELECT 1 FROM risk_halt WHERE released_at IS NULL)""",
    "I24b no report of a broker is set aside for a person to mend": """
        SELECT id FROM orders_parkedreport WHERE applied_at IS NULL AND waits_for LIKE 'mending:%'""",
    "I25 one key, one order": """
        SELECT min(id::text) FROM orders_idempotencykey GROUP BY user_id, key HAVING count(*) > 1""",
    "I30 an open order is at a broker, or waits at the desk for what it can be let go by": f"""
        SELECT o.id FROM orders_order o WHERE o.status NOT IN ({_CLOSED}, 'held')
          AND NOT EXISTS (SELECT 1 FROM orders_childorder c WHERE c.order_id = o.id)
          AND NOT EXISTS (SELECT 1 FROM orders_trigger t WHERE t.order_id = o.id AND t.fired_at IS NULL)
          AND NOT EXISTS (SELECT 1 FROM orders_algo a WHERE a.order_id = o.id AND a.state IN ('working', 'paused'))""",
    "I33 the work on an order goes on while it is open, and tells so; one that is over leaves nothing planned": f"""
        SELECT a.order_id FROM orders_algo a JOIN orders_order o ON o.id = a.order_id
        WHERE (a.state = 'over' AND EXISTS (SELECT 1 FROM orders_algoslice s
            WHERE s.order_id = o.id AND s.state IN ('planned', 'claimed')))
          OR (a.state <> 'over' AND o.status IN ({_CLOSED})) OR (a.state = 'waiting') <> (o.status = 'held')
          OR a.state IS DISTINCT FROM o.instructions->'progress'->>'state' OR o.instructions->'algo' IS NULL
          OR (a.state = 'over' AND o.status NOT IN ({_CLOSED}) AND NOT EXISTS (
            SELECT 1 FROM orders_childorder c WHERE c.order_id = o.id AND c.leaves_quantity > 0))""",
    "I34 every broker order of a worked order is one slice, and every slice sent is one broker order of it": """
        SELECT c.id FROM orders_childorder c JOIN orders_algo a ON a.order_id = c.order_id
        WHERE NOT EXISTS (SELECT 1 FROM orders_algoslice s WHERE s.child_id = c.id AND s.order_id = c.order_id)
        UNION ALL SELECT s.id FROM orders_algoslice s LEFT JOIN orders_childorder c ON c.id = s.child_id
        WHERE (s.state = 'sent') <> (c.id IS NOT NULL) OR c.order_id <> s.order_id""",
    "I35 slices are numbered without a gap, and none is sent after one with a higher number": """
        SELECT order_id FROM orders_algoslice GROUP BY order_id HAVING max(number) <> count(*) OR min(number) <> 1
        UNION ALL SELECT s.order_id FROM orders_algoslice s JOIN orders_algoslice t
          ON t.order_id = s.order_id AND t.number > s.number AND t.decided_at < s.decided_at
          WHERE s.state = 'sent' AND t.state = 'sent'""",
    "I36 no slice stays claimed, nor one of a working order due, for a minute": """
        SELECT s.id FROM orders_algoslice s JOIN orders_algo a ON a.order_id = s.order_id
        WHERE a.state = 'working' AND (
          (s.state = 'claimed' AND s.lease_until < desk_clock() - interval '60 seconds')
          OR (s.state = 'planned' AND s.due_at < desk_clock() - interval '60 seconds' AND a.name <> 'iceberg'
            AND NOT EXISTS (SELECT 1 FROM risk_halt WHERE released_at IS NULL)))""",
    "I26 no new order left during a halt of its scope": """
        WITH halted AS (
          SELECT scope_kind, scope_key, mode,
            range_agg(tstzrange(engaged_at, coalesce(released_at, 'infinity'), '()')) AS times
          FROM risk_halt WHERE released_at IS NULL OR released_at > engaged_at GROUP BY scope_kind, scope_key, mode)
        SELECT s.id FROM orders_submission s
        JOIN orders_childorder c ON c.id = s.child_id JOIN orders_order o ON o.id = c.order_id
        JOIN portfolio_account a ON a.id = s.account_id JOIN brokers_broker b ON b.id = s.broker_id
        JOIN brokers_instrument i ON i.id = o.instrument_id
        LEFT JOIN portfolio_strategy st ON st.id = o.strategy_id LEFT JOIN auth_user u ON u.id = o.created_by_id
        CROSS JOIN LATERAL (VALUES ('all', ''), ('account', a.code), ('broker', b.code), ('symbol', i.symbol),
          ('strategy', st.code), ('user', u.username)) k(kind, key)
        JOIN halted h ON h.scope_kind = k.kind AND h.scope_key = k.key
        WHERE s.kind <> 'cancel' AND s.sent_at <@ h.times AND CASE WHEN s.reduces
          THEN h.mode = 'halt' AND (o.origin <> 'liquidation' OR h.scope_kind = 'broker') ELSE true END
          AND o.origin <> 'external'""",
    "I37 shares of a block add up to it, and what was allocated of them to its orders": """
        SELECT b.order_id FROM orders_block b LEFT JOIN (
          SELECT block_id, sum(quantity) AS asked, sum(allocated) AS got FROM orders_blockshare GROUP BY 1) s ON s.block_id = b.order_id
        LEFT JOIN (SELECT a.block_id, sum(o.quantity) FILTER (WHERE a.share_id IS NOT NULL) AS given,
            sum(o.quantity) FILTER (WHERE a.share_id IS NULL) AS back
          FROM orders_allocation a JOIN orders_order o ON o.id = a.order_id GROUP BY 1) g ON g.block_id = b.order_id
        WHERE (s.asked, s.got) IS DISTINCT FROM (b.quantity, b.allocated)
          OR coalesce(g.given, 0) <> b.allocated OR coalesce(g.back, 0) <> b.allocated""",
}
