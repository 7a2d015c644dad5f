"""Names for lists whose plural is not made by an s."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("brokers", "0002_facts_stay"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="brokerhealth",
            options={"verbose_name_plural": "broker health"},
        ),
    ]
