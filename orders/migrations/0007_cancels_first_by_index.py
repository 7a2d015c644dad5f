"""What is due has two indexes: cancels come first, and the queue behind them is not read for them."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """Indexes of submissions."""

    dependencies = [("orders", "0006_ceiling_by_index")]

    operations = [
        migrations.RemoveIndex(model_name="submission", name="submission_due"),
        migrations.AddIndex(
            model_name="submission",
            index=models.Index(
                fields=["broker", "due_at"], condition=Q(state="prepared") & ~Q(kind="cancel"), name="submission_due"
            ),
        ),
        migrations.AddIndex(
            model_name="submission",
            index=models.Index(
                fields=["broker", "due_at"], condition=Q(state="prepared", kind="cancel"), name="submission_due_cancel"
            ),
        ),
    ]
