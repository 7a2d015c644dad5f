"""Trades booked before settlements were kept get theirs: settled where they were due, else pending."""

from django.db import migrations

# The cash of a trade in force is what its ledger lines and those of the versions before it add up to.
BOOKED = """
WITH RECURSIVE chain AS (
  SELECT t.id AS live, t.id, t.ref_id FROM portfolio_trade t
  WHERE t.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)
  UNION ALL
  SELECT c.live, t.id, t.ref_id FROM chain c JOIN portfolio_trade t ON t.id = c.ref_id
), cash AS (
  SELECT c.live, sum(e.amount) AS amount FROM chain c
  JOIN portfolio_trade t ON t.id = c.id JOIN brokers_instrument i ON i.id = t.instrument_id
  JOIN portfolio_ledgertransaction x ON x.source_kind = 'execution' AND x.source_id = c.id
  JOIN portfolio_ledgerentry e ON e.transaction_id = x.id AND e.code = 'cash' AND e.currency = i.currency
  GROUP BY c.live
)
INSERT INTO portfolio_settlement (trade_id, account_id, instrument_id, currency, quantity, amount, due_on, state,
  settled_quantity, settled_amount, settled_on, reason)
SELECT t.id, t.account_id, t.instrument_id, i.currency, t.quantity, coalesce(c.amount, 0), t.settle_date,
  CASE WHEN d.done THEN 'settled' ELSE 'pending' END, CASE WHEN d.done THEN t.quantity ELSE 0 END,
  CASE WHEN d.done THEN coalesce(c.amount, 0) ELSE 0 END, CASE WHEN d.done THEN t.settle_date END, ''
FROM portfolio_trade t JOIN brokers_instrument i ON i.id = t.instrument_id
JOIN (SELECT DISTINCT live FROM chain) l ON l.live = t.id LEFT JOIN cash c ON c.live = t.id
CROSS JOIN LATERAL (SELECT t.settle_date <= current_date AS done) d
"""


class Migration(migrations.Migration):
    """Fill the settlements."""

    dependencies = [("portfolio", "0009_settlements"), ("brokers", "0001_initial")]

    operations = [migrations.RunSQL(BOOKED, "DELETE FROM portfolio_settlement")]
