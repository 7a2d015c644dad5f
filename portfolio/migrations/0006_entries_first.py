"""A ledger transaction is written behind its entries, so that one look tells whether any of a statement has none."""

from django.db import migrations

# The foreign key from entry to transaction waits for the commit, so entries may come first; a transaction is then checked
# where it is written, all of a statement at once, instead of one by one at the commit.
ENTRIES = """
DROP TRIGGER ledger_transaction_balances ON portfolio_ledgertransaction;
DROP FUNCTION ledger_transaction_balances();

CREATE FUNCTION ledger_transactions_have_entries() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE bad uuid;
BEGIN
  SELECT w.id INTO bad FROM written w
  WHERE (SELECT e.id FROM portfolio_ledgerentry e WHERE e.transaction_id = w.id LIMIT 1) IS NULL LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'ledger transaction % has no entries', bad
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_zero_sum';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ledger_transactions_have_entries AFTER INSERT ON portfolio_ledgertransaction
  REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION ledger_transactions_have_entries();
"""
BACK = """
DROP FUNCTION ledger_transactions_have_entries() CASCADE;
CREATE FUNCTION ledger_transaction_balances() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM portfolio_ledgerentry WHERE transaction_id = NEW.id) THEN
    RAISE EXCEPTION 'ledger transaction % has no entries', NEW.id
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_zero_sum';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ledger_transaction_balances AFTER INSERT ON portfolio_ledgertransaction
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_transaction_balances();
"""


class Migration(migrations.Migration):
    """Triggers of the ledger."""

    dependencies = [("portfolio", "0005_balance_by_statement")]

    operations = [migrations.RunSQL(ENTRIES, BACK)]
