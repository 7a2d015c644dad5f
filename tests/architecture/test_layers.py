"""Foreign keys point down the stack, as imports do."""

from django.apps import apps

STACK = ["journal", "access", "brokers", "routing", "portfolio", "risk", "orders", "analytics"]
FRAMEWORK = {"auth", "contenttypes"}


def test_foreign_keys_point_down() -> None:
    upward = []
    for rank, app in enumerate(STACK):
        below = set(STACK[: rank + 1]) | FRAMEWORK
        for model in apps.get_app_config(app).get_models():
            for field in model._meta.get_fields():
                target = field.related_model._meta.app_label if field.is_relation and field.concrete else app
                if target not in below:
                    upward.append(f"{model.__name__}.{field.name} -> {target}")
    assert upward == []
