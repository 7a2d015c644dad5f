"""Names for lists whose plural is not made by an s."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("brokers", "0003_trading_sessions"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="brokerhealth",
            options={"verbose_name_plural": "broker health"},
        ),
    ]
