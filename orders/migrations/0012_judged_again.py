"""Requests keep when risk last let them pass."""

from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    """One column; what is there was judged when it was made."""

    dependencies = [("orders", "0011_fees_without_a_rate")]

    operations = [
        migrations.AddField(
            "submission", "judged_at", models.DateTimeField(default=timezone.now), preserve_default=False
        ),
        migrations.RunSQL("UPDATE orders_submission SET judged_at = created_at", migrations.RunSQL.noop),
    ]
