"""What must hold of the books at every quiet moment: each predicate returns the rows that break it, so none."""

_LIVE = (
    "SELECT t.* FROM portfolio_trade t WHERE t.kind <> 'bust' "
    "AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)"
)

PREDICATES = {
    "I08 a broker's position is the sum of its live trades and of what corporate actions made of them": f"""
        SELECT coalesce(p.instrument_id, f.instrument_id) FROM
          (SELECT account_id, broker_id, instrument_id, quantity AS q FROM portfolio_brokerposition) p
        FULL JOIN (SELECT account_id, broker_id, instrument_id, sum(quantity) AS q FROM (
            SELECT account_id, broker_id, instrument_id, quantity FROM ({_LIVE}) t
            UNION ALL SELECT e.account_id, e.broker_id, e.instrument_id, e.quantity FROM portfolio_ledgertransaction x
            JOIN portfolio_ledgerentry e ON e.transaction_id = x.id AND e.quantity <> 0 WHERE x.source_kind = 'corporate'
          ) moved GROUP BY 1, 2, 3) f
          USING (account_id, broker_id, instrument_id)
        WHERE coalesce(p.q, 0) <> coalesce(f.q, 0)""",
    "I08a a position is the sum of the brokers' parts and of its lots": """
        SELECT p.id FROM portfolio_position p WHERE p.quantity <> (
          SELECT coalesce(sum(b.quantity), 0) FROM portfolio_brokerposition b
          WHERE b.account_id = p.account_id AND b.instrument_id = p.instrument_id)
        OR p.quantity <> (SELECT coalesce(sum(l.remaining), 0) FROM portfolio_lot l
          WHERE l.account_id = p.account_id AND l.instrument_id = p.instrument_id)""",
    "I08b a position's cost, quantity, gain and fees are the ledger's in its currency": """
        SELECT coalesce(p.instrument_id, l.instrument_id) FROM portfolio_position p FULL JOIN (
          SELECT account_id, instrument_id,
                 coalesce(sum(amount) FILTER (WHERE code = 'securities'), 0) AS cost,
                 coalesce(sum(quantity) FILTER (WHERE code = 'securities'), 0) AS quantity,
                 coalesce(-sum(amount) FILTER (WHERE code = 'realized_pnl'), 0) AS realized,
                 coalesce(sum(amount) FILTER (WHERE code = 'fees'), 0) AS fees
          FROM portfolio_ledgerentry e JOIN brokers_instrument i ON i.id = e.instrument_id AND i.currency = e.currency
          GROUP BY account_id, instrument_id) l
          USING (account_id, instrument_id)
        WHERE (coalesce(p.cost, 0), coalesce(p.quantity, 0), coalesce(p.realized, 0), coalesce(p.fees, 0))
          <> (coalesce(l.cost, 0), coalesce(l.quantity, 0), coalesce(l.realized, 0), coalesce(l.fees, 0))""",
    "I09 every ledger transaction sums to zero in each currency": """
        SELECT transaction_id FROM portfolio_ledgerentry GROUP BY transaction_id, currency HAVING sum(amount) <> 0""",
    "I10 the whole ledger sums to zero in each currency": """
        SELECT currency FROM portfolio_ledgerentry GROUP BY currency HAVING sum(amount) <> 0""",
    "I12 cash is the sum of its ledger entries": """
        SELECT coalesce(c.account_id, l.account_id) FROM portfolio_cashbalance c FULL JOIN (
          SELECT account_id, currency, sum(amount) AS s FROM portfolio_ledgerentry WHERE code = 'cash' GROUP BY 1, 2) l
          USING (account_id, currency) WHERE coalesce(c.balance, 0) <> coalesce(l.s, 0)""",
    "I12a cash at a broker is the sum of the ledger entries that name it": """
        SELECT coalesce(c.account_id, l.account_id) FROM portfolio_brokercash c FULL JOIN (
          SELECT account_id, broker_id, currency, sum(amount) AS s FROM portfolio_ledgerentry
          WHERE code = 'cash' AND broker_id IS NOT NULL GROUP BY 1, 2, 3) l
          USING (account_id, broker_id, currency) WHERE coalesce(c.balance, 0) <> coalesce(l.s, 0)""",
    "I27 every trade in force settles once, for what it moved": f"""
        SELECT t.id FROM ({_LIVE}) t LEFT JOIN portfolio_settlement s ON s.trade_id = t.id
        WHERE s.trade_id IS NULL OR s.state = 'canceled' OR s.quantity <> t.quantity
        UNION ALL SELECT s.trade_id FROM portfolio_settlement s WHERE s.state <> 'canceled'
          AND NOT EXISTS (SELECT 1 FROM ({_LIVE}) t WHERE t.id = s.trade_id)""",
    "I27a settlements of a holding move the cash that its trades did": """
        SELECT coalesce(s.instrument_id, l.instrument_id) FROM (
          SELECT account_id, instrument_id, currency, sum(amount) AS cash FROM portfolio_settlement
          WHERE state <> 'canceled' GROUP BY 1, 2, 3) s
        FULL JOIN (
          SELECT e.account_id, e.instrument_id, e.currency, sum(e.amount) AS cash FROM portfolio_ledgerentry e
          JOIN portfolio_ledgertransaction x ON x.id = e.transaction_id AND x.source_kind = 'execution'
          JOIN brokers_instrument i ON i.id = e.instrument_id AND i.currency = e.currency
          WHERE e.code = 'cash' GROUP BY 1, 2, 3) l USING (account_id, instrument_id, currency)
        WHERE coalesce(s.cash, 0) <> coalesce(l.cash, 0)""",
    "I31 an entitlement is what its ledger transaction paid, and none stays of what was reversed": """
        SELECT n.id FROM portfolio_entitlement n WHERE n.amount <> (
          SELECT coalesce(sum(e.amount), 0) FROM portfolio_ledgerentry e
          WHERE e.transaction_id = n.transaction_id AND e.code = 'cash' AND e.currency = n.currency)
        UNION ALL SELECT a.id FROM portfolio_corporateaction a WHERE a.state <> 'applied'
          AND EXISTS (SELECT 1 FROM portfolio_entitlement n WHERE n.action_id = a.id
                      GROUP BY n.account_id HAVING sum(n.amount) <> 0)""",
    "I13 amounts are finite": """
        SELECT id FROM portfolio_ledgerentry WHERE 'NaN' IN (amount, quantity)
        UNION ALL SELECT id FROM portfolio_trade WHERE 'NaN' IN (quantity, price, fees)""",
}
