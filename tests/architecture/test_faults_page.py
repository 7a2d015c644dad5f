"""docs/faults.md names tests; each of them must be there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_and_every_point_that_the_page_of_faults_names_exists() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
    code = "\n".join(p.read_text() for top in ("oms", "orders") for p in (ROOT / top).rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    points = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))

    assert {name for name in named if f"def {name}(" not in tests} == set()
    assert points
    assert {p for p in points if not re.search(rf'(crash\.point\(|yield )"{p}"', code)} == set()
    own = [*(ROOT / "tests" / "faults").glob("test_*.py"), *(ROOT / "tests" / "flows").glob("test_*_faults.py")]
    ours = "\n".join(p.read_text() for p in own)
    assert set(re.findall(r"def (test_[abcd]\d\d_\w+)\(", ours)) <= named


CATALOGUE = [
    f"{group}{n:02}" for group, last in {"A": 19, "B": 19, "C": 9, "D": 12, "G": 17}.items() for n in range(1, last + 1)
]


def test_every_failure_of_the_catalogue_is_a_test_that_can_be_found() -> None:
    here = Path(__file__).name
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py") if p.name != here)
    missing = {i for i in CATALOGUE if not re.search(rf"(def test_{i.lower()}_|\b{i}\b)", tests)}
    assert missing == set()
