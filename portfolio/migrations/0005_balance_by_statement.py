"""Balance is checked on what a statement writes, which costs the same however long the ledger."""

from django.db import migrations, models

# All entries of a transaction are written by one statement, so each statement must balance by itself, and with them
# the whole. Reading the table here instead would be planned once a session, for the size it had then.
BALANCE = """
CREATE OR REPLACE FUNCTION ledger_entries_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad uuid;
BEGIN
  SELECT transaction_id INTO bad FROM written GROUP BY transaction_id, currency HAVING sum(amount) <> 0 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'ledger transaction % does not balance', bad
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_zero_sum';
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION ledger_transaction_balances() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM portfolio_ledgerentry WHERE transaction_id = NEW.id) THEN
    RAISE EXCEPTION 'ledger transaction % has no entries', NEW.id
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'ledger_zero_sum';
  END IF;
  RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    """Triggers of the ledger, and lots that are closed exactly when they are empty."""

    dependencies = [("portfolio", "0004_lots_by_closing")]

    operations = [
        migrations.RunSQL(BALANCE, migrations.RunSQL.noop),
        migrations.AddConstraint(
            model_name="lot",
            constraint=models.CheckConstraint(
                condition=models.Q(remaining=0, closed_at__isnull=False)
                | (~models.Q(remaining=0) & models.Q(closed_at=None)),
                name="lot_closed_when_empty",
            ),
        ),
    ]
