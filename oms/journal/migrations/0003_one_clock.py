"""One function tells the time to every statement."""

from django.db import migrations

from oms.runtime.clock import make_clock


class Migration(migrations.Migration):
    """Make `desk_clock()`."""

    dependencies = [("journal", "0002_facts_stay")]

    operations = [make_clock()]
