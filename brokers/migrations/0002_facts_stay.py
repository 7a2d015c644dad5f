"""Facts stay as they were written."""

from django.db import migrations

from oms.runtime.triggers import append_only


class Migration(migrations.Migration):
    """Triggers on the append-only tables of this app."""

    dependencies = [("brokers", "0001_initial")]

    operations = [append_only("brokers_rawmessage")]
