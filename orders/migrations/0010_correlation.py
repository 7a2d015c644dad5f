"""What the log lines of a request are known by is kept with the order and with each request to a broker."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """A column each on orders and submissions; old rows have none."""

    dependencies = [("orders", "0009_changes_asked_for")]

    operations = [
        migrations.AddField("order", "correlation_id", models.CharField(blank=True, default="", max_length=64), False),
        migrations.AddField(
            "submission", "correlation_id", models.CharField(blank=True, default="", max_length=64), False
        ),
    ]
