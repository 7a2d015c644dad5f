"""Published cases, read from `$ORACLES_DIR` (beside the checkout where that is not set).

A case is read field by field, and whatever nothing asked for fails it: a figure that nobody looks at proves nothing.
"""

import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("ORACLES_DIR", "../shared/oracles"))
LAST_DIGIT = Decimal("0.00000001")
ABOUT = {"id", "title", "source", "confidence", "notes", "do_not_assert"}
"""What a case tells about itself."""


def document(name: str) -> dict[str, Any]:
    """Return a file of cases, empty where the folder is not there."""
    path = FOLDER / name
    return dict(json.loads(path.read_text())) if path.exists() else {}


def cases(name: str) -> list[Any]:
    """Return the cases of a file as parameters named by their ids, or one that says why there are none."""
    if not (FOLDER / name).exists():
        return [
            pytest.param(None, id="absent", marks=pytest.mark.skip(f"no published cases: {FOLDER / name} is not there"))
        ]
    return [pytest.param(case, id=case["id"]) for case in document(name)["cases"]]


class Fields:
    """The fields of a case, which must all be asked for."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self.raw, self.where, self.seen = raw, where, set[str]()

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def take(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default where it is absent."""
        self.seen.add(name)
        return self.raw.get(name, default)

    def number(self, name: str, default: str | None = None) -> Decimal:
        """Return a field that spells a decimal."""
        value = self.take(name, default)
        assert value is not None, f"{self.where} has no {name}"
        return Decimal(str(value))

    def end(self) -> None:
        """Fail for what nothing asked for."""
        if left := self.raw.keys() - self.seen:
            pytest.fail(f"{self.where}: nothing knows {', '.join(sorted(left))}")


def same(found: Decimal, wanted: object, tolerance: object = None) -> bool:
    """Tell whether a figure is the published one, as rounded there; whole numbers are exact."""
    told = Decimal(str(wanted))
    exponent = told.as_tuple().exponent
    assert isinstance(exponent, int)
    allowed = Decimal(str(tolerance)) if tolerance is not None else max(
        LAST_DIGIT, Decimal(1).scaleb(exponent) / 2 if exponent <= -2 else LAST_DIGIT
    )  # fmt: skip
    return abs(found - told) <= allowed


Figure = Callable[[], Any]


def check(expected: dict[str, Any], figures: dict[str, Figure], where: str) -> None:
    """Compare every expected field with what the desk finds for it."""
    for name, wanted in expected.items():
        if name.endswith(("_tolerance", "_printed")):
            continue  # a printed figure is told beside the exact one, rounded on its way
        if name not in figures:
            pytest.fail(f"{where}: nothing finds {name}")
        found = figures[name]()
        if isinstance(found, Decimal):
            assert same(found, wanted, expected.get(f"{name}_tolerance")), (
                f"{where} {name}: {found} instead of {wanted}"
            )
        else:
            assert found == wanted, f"{where} {name}: {found} instead of {wanted}"
