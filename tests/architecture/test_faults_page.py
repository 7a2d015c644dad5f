"""docs/faults.md names tests; each of them must be there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_and_every_point_that_the_page_of_faults_names_exists() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    tests = "\n".join(p.read_text() for p in (ROOT / "tests" / "faults").glob("test_*.py"))
    code = "\n".join(p.read_text() for top in ("oms", "orders") for p in (ROOT / top).rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    points = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))

    assert {name for name in named if f"def {name}(" not in tests} == set()
    assert points
    assert {p for p in points if not re.search(rf'(crash\.point\(|yield )"{p}"', code)} == set()
    assert set(re.findall(r"def (test_[ad]\d\d_\w+)\(", tests)) <= named
