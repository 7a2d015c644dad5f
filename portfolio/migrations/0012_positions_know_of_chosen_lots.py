"""Whether lots were ever chosen in a holding stands in its position: asking all its trades cost more with each of them."""

from django.db import migrations, models

KNOWN = """
UPDATE portfolio_position p SET lots_chosen = true FROM (
  SELECT DISTINCT account_id, instrument_id FROM portfolio_trade WHERE chosen IS NOT NULL
) t WHERE t.account_id = p.account_id AND t.instrument_id = p.instrument_id;
"""


class Migration(migrations.Migration):
    """A flag in place of an index."""

    dependencies = [("portfolio", "0011_cash_dividends")]

    operations = [
        migrations.AddField("position", "lots_chosen", models.BooleanField(db_default=False, default=False)),
        migrations.RunSQL(KNOWN, migrations.RunSQL.noop),
        migrations.RemoveIndex("trade", "trade_chosen"),
    ]
