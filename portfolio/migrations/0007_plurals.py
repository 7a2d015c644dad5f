"""Names for lists whose plural is not made by an s."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("portfolio", "0006_entries_first"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="historicalstrategy",
            options={
                "get_latest_by": ("history_date", "history_id"),
                "ordering": ("-history_date", "-history_id"),
                "verbose_name": "historical strategy",
                "verbose_name_plural": "historical strategies",
            },
        ),
        migrations.AlterModelOptions(
            name="ledgerentry",
            options={"verbose_name_plural": "ledger entries"},
        ),
        migrations.AlterModelOptions(
            name="strategy",
            options={"verbose_name_plural": "strategies"},
        ),
    ]
