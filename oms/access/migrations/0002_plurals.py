"""A name for a list whose plural is not made by an s."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0001_initial"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="tokenterms",
            options={"verbose_name_plural": "token terms"},
        ),
    ]
