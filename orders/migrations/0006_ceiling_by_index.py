"""The ceiling of broker orders is looked up order by order, which costs the same however many there are."""

from django.db import migrations

# The function's plans are kept for a session, and made for the size the tables had when it began: joining them as sets
# then reads all of both later on. A look-up by key has one plan only.
CEILING = """
CREATE OR REPLACE FUNCTION children_within_order() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE bad uuid;
BEGIN
  SELECT w.order_id INTO bad FROM (SELECT DISTINCT order_id FROM written) w
  WHERE (SELECT sum(c.filled_quantity + c.leaves_quantity) FROM orders_childorder c WHERE c.order_id = w.order_id)
      > (SELECT o.quantity FROM orders_order o WHERE o.id = w.order_id) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'children of order % exceed its quantity', bad
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'children_within_order';
  END IF;
  RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    """One trigger function anew."""

    dependencies = [("orders", "0005_lists_by_index")]

    operations = [migrations.RunSQL(CEILING, migrations.RunSQL.noop)]
