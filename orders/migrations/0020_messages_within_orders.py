"""What a broker is told never asks for more than the desk was asked for, whoever wrote the message."""

from django.db import migrations

# The last look before anything leaves: independent of routing, which decides how much goes where, and of the code that
# spells the message. A look-up by key for each row, as in the ceiling of broker orders.
OUT_WITHIN_IN = """
CREATE FUNCTION messages_within_order() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE bad uuid;
BEGIN
  SELECT w.id INTO bad FROM written w WHERE CASE w.kind
    WHEN 'cancel' THEN false
    WHEN 'new' THEN NOT coalesce(
      (w.message->>'quantity')::numeric <= (SELECT c.quantity FROM orders_childorder c WHERE c.id = w.child_id)
      AND w.message->>'side' = (SELECT o.side FROM orders_childorder c JOIN orders_order o ON o.id = c.order_id
                                WHERE c.id = w.child_id), false)
    WHEN 'replace' THEN NOT coalesce((w.message->>'quantity')::numeric > 0, false)
      OR (w.message->>'quantity')::numeric > (
        SELECT c.filled_quantity + h.open_quantity FROM orders_childorder c JOIN risk_hold h ON h.id = c.order_id
        WHERE c.id = w.child_id)
    ELSE true END LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'message % asks for more than its order', bad
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'messages_within_order';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER messages_within_order AFTER INSERT ON orders_submission
  REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION messages_within_order();
"""


class Migration(migrations.Migration):
    """One trigger."""

    dependencies = [("orders", "0019_builds"), ("risk", "0012_limits_on_sums")]

    operations = [migrations.RunSQL(OUT_WITHIN_IN, "DROP FUNCTION messages_within_order() CASCADE;")]
