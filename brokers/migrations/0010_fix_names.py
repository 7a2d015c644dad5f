"""FIX is written in capitals."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("brokers", "0009_fix_sessions"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="fixmessage",
            options={"verbose_name": "FIX message"},
        ),
        migrations.AlterModelOptions(
            name="fixsession",
            options={"verbose_name": "FIX session"},
        ),
    ]
