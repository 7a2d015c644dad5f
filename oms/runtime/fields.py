"""Columns whose bounds hold in the database as well as in Python."""

from typing import TYPE_CHECKING, Any

from django.db import models

from oms.kernel.decimals import BOUND, FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX

if TYPE_CHECKING:
    _Decimal = models.DecimalField[Any, Any]
else:
    _Decimal = models.DecimalField


class ExactField(_Decimal):
    """A quantity, price or amount: numeric(25, 10), never NaN, below 10^15 either way."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_digits", INTEGER_DIGITS_MAX + FRACTION_DIGITS_MAX)
        kwargs.setdefault("decimal_places", FRACTION_DIGITS_MAX)
        super().__init__(*args, **kwargs)


def bounded(
    table: str,
    *,
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
    any_sign: tuple[str, ...] = (),
) -> list[models.CheckConstraint]:
    """Return one check per column: finite (a NaN sorts above every number, so an upper bound refuses it) and signed as said."""
    rules = [(name, models.Q(**{f"{name}__gt": 0})) for name in positive]
    rules += [(name, models.Q(**{f"{name}__gte": 0})) for name in not_negative]
    rules += [(name, models.Q(**{f"{name}__gt": -BOUND})) for name in any_sign]
    return [
        models.CheckConstraint(condition=rule & models.Q(**{f"{name}__lt": BOUND}), name=f"{table}_{name}_bounded")
        for name, rule in rules
    ]
