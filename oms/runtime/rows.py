"""Model instances for the hot paths: made and loaded without `Model.__init__`, its signals and its per-field descriptors.

They are the same instances, with the same fields, methods and transitions; nothing listens to their making. Only what
handles rows by the thousand needs this.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from django.db import models
from django.db.models.base import ModelState
from django.db.models.fields import NOT_PROVIDED

from oms.runtime import sql

M = TypeVar("M", bound=models.Model)


class _Shape:
    """What an instance of a model starts with."""

    def __init__(self, model: type[models.Model]) -> None:
        fields = model._meta.concrete_fields
        self.names = frozenset(f.attname for f in fields)
        self.plain: dict[str, Any] = {}
        self.made: dict[str, Callable[[], Any]] = {}
        for field in fields:
            if field.default is not NOT_PROVIDED and callable(field.default):
                self.made[field.attname] = field.default
            else:
                self.plain[field.attname] = field.get_default()


_shape = cache(_Shape)


def make(model: type[M], **values: Any) -> M:
    """Return a new instance; values go by column attribute (`account_id`, not `account`)."""
    shape = _shape(model)
    if not values.keys() <= shape.names:
        raise TypeError(f"{model.__name__} has no field {', '.join(sorted(values.keys() - shape.names))}")
    instance = model.__new__(model)
    state = instance.__dict__
    state["_state"] = ModelState()
    state.update(shape.plain)
    for name, build in shape.made.items():
        state[name] = build()
    state.update(values)
    return instance


def load(model: type[M], tail: str, parameters: Sequence[Any], *, without: Sequence[str] = ()) -> Iterator[M]:
    """Ask for the instances that `SELECT … FROM <its table> t <tail>` finds, and return them in that order.

    The question is asked at once, the answer read when it is iterated over: in a pipeline several can be under way.
    Columns named in `without` are left out; they are read one by one where somebody asks after all.
    """
    names, columns = _loaded(model, tuple(without))
    found = sql.run(f'SELECT {columns} FROM "{model._meta.db_table}" t {tail}', parameters, binary=True)
    return (_loaded_instance(model, names, row) for row in found)


def _loaded_instance(model: type[M], names: Sequence[str], values: Sequence[Any]) -> M:
    instance = model.__new__(model)
    state = instance.__dict__
    state.update(zip(names, values, strict=True))
    state["_state"] = kept = ModelState()
    kept.adding, kept.db = False, "default"
    return instance


@cache
def _loaded(model: type[models.Model], without: tuple[str, ...]) -> tuple[list[str], str]:
    fields = [f for f in model._meta.concrete_fields if f.attname not in without]
    return [f.attname for f in fields], ", ".join(f't."{f.column}"' for f in fields)
