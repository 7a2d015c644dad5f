"""Names for lists whose plural is not made by an s."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("analytics", "0003_close_is_read"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="executionquality",
            options={"verbose_name_plural": "execution qualities"},
        ),
        migrations.AlterModelOptions(
            name="fillquality",
            options={"verbose_name_plural": "fill qualities"},
        ),
        migrations.AlterModelOptions(
            name="routequality",
            options={"verbose_name_plural": "route qualities"},
        ),
    ]
