"""Executions stay, and what is asked of brokers never passes what was asked of the desk."""

from django.db import migrations

from oms.runtime.triggers import append_only

# Bound where we commit to send (a new child), not where a broker reports: facts are always recorded.
CEILING = """
CREATE FUNCTION children_within_order() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad uuid;
BEGIN
  SELECT o.id INTO bad FROM orders_order o JOIN orders_childorder c ON c.order_id = o.id
  WHERE o.id IN (SELECT order_id FROM written)
  GROUP BY o.id, o.quantity HAVING sum(c.filled_quantity + c.leaves_quantity) > o.quantity LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'children of order % exceed its quantity', bad
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'children_within_order';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER children_within_order AFTER INSERT ON orders_childorder
  REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION children_within_order();
"""


class Migration(migrations.Migration):
    """Triggers of the desk."""

    dependencies = [("orders", "0001_initial")]

    operations = [
        migrations.RunSQL(CEILING, "DROP FUNCTION children_within_order() CASCADE;"),
        append_only("orders_execution"),
    ]
