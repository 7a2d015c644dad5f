"""Exact numbers: bounded, finite decimals that travel as strings."""

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal

from oms.kernel.errors import Invalid

INTEGER_DIGITS_MAX = 15
FRACTION_DIGITS_MAX = 10
BOUND = Decimal(10) ** INTEGER_DIGITS_MAX
"""No quantity, price or amount reaches this; the columns carry the same bound as a check."""

ZERO = Decimal(0)
CENTS = Decimal("0.00000001")
"""Money is kept to eight places, enough for every currency and crypto asset traded here."""

EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_PLAIN = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)


def parse(text: object, *, field: str = "") -> Decimal:
    """Return the decimal that a JSON string spells, or raise `Invalid` naming the field.

    Only plain ASCII notation passes: no float, exponent, NaN, sign of plus, blank or digit group.
    """
    if not isinstance(text, str):
        raise Invalid("not_a_decimal_string", 'Send decimals as JSON strings, for example "10.5".', field=field)
    if not _PLAIN.fullmatch(text):
        raise Invalid("not_a_decimal", "Use plain decimal notation, for example 10.5.", field=field)
    value = Decimal(text)
    if abs(value) >= BOUND:
        raise Invalid("out_of_range", f"The value must be below 10^{INTEGER_DIGITS_MAX}.", field=field)
    exponent = value.normalize(EXACT).as_tuple().exponent
    if isinstance(exponent, int) and exponent < -FRACTION_DIGITS_MAX:
        raise Invalid("too_precise", f"At most {FRACTION_DIGITS_MAX} decimal places are kept.", field=field)
    return value + ZERO  # turns -0 into 0


def text(value: Decimal) -> str:
    """Return the one plain spelling of a decimal: no exponent, no trailing zeros, no minus zero.

    >>> text(Decimal("1E+3")), text(Decimal("10.500")), text(Decimal("-0.0"))
    ('1000', '10.5', '0')
    """
    spelled = str(value)
    if "E" in spelled:
        spelled = format(value, "f")
    if "." in spelled:
        spelled = spelled.rstrip("0").rstrip(".")
    return "0" if spelled in ("-0", "") else spelled


def text_or_none(value: Decimal | None) -> str | None:
    """Return `text(value)`, or None for None."""
    return None if value is None else text(value)


def money(value: Decimal) -> Decimal:
    """Round an amount to the precision the books keep, half to even."""
    return value.quantize(CENTS, rounding=ROUND_HALF_EVEN, context=EXACT)


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Tell whether value stands on the grid of step (a tick or a lot); a step of zero has no grid."""
    return step == 0 or EXACT.remainder(value, step) == 0


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """Return the largest multiple of step not above value (value >= 0)."""
    return value if step == 0 else EXACT.divide_int(value, step) * step


def total(values: Iterable[Decimal]) -> Decimal:
    """Sum decimals exactly, starting from a decimal zero."""
    return sum(values, ZERO)
