"""The ledger balances in the database, and nothing booked is ever changed."""

from django.db import migrations

from oms.runtime.triggers import append_only

# The statement trigger sees a whole insert at once, so balance is checked per statement, not per row; the
# deferred one catches a transaction left without entries.
BALANCE = """
CREATE FUNCTION ledger_entries_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad uuid;
BEGIN
  SELECT e.transaction_id INTO bad FROM portfolio_ledgerentry e
  WHERE e.transaction_id IN (SELECT transaction_id FROM written)
  GROUP BY e.transaction_id, e.currency HAVING sum(e.amount) <> 0 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'ledger transaction % does not balance', bad
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_zero_sum';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ledger_entries_balance AFTER INSERT ON portfolio_ledgerentry
  REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_balance();

CREATE FUNCTION ledger_transaction_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM portfolio_ledgerentry WHERE transaction_id = NEW.id) OR EXISTS (
    SELECT 1 FROM portfolio_ledgerentry WHERE transaction_id = NEW.id GROUP BY currency HAVING sum(amount) <> 0
  ) THEN
    RAISE EXCEPTION 'ledger transaction % does not balance', NEW.id
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_zero_sum';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ledger_transaction_balances AFTER INSERT ON portfolio_ledgertransaction
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_transaction_balances();
"""


class Migration(migrations.Migration):
    """Triggers of the ledger."""

    dependencies = [("portfolio", "0001_initial")]

    operations = [
        migrations.RunSQL(
            BALANCE,
            "DROP FUNCTION ledger_entries_balance() CASCADE; DROP FUNCTION ledger_transaction_balances() CASCADE;",
        ),
        append_only("portfolio_trade"),
        append_only("portfolio_ledgertransaction"),
        append_only("portfolio_ledgerentry"),
    ]
