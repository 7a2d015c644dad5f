"""Every published file has a player here, or waits by name for what it needs."""

from pathlib import Path

import pytest

from tests.oracles.reading import FOLDER

WAITING = {
    "rebalance.json": "until rebalances are planned from published cases",
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no published cases: {FOLDER} is not there")
def test_no_file_is_passed_over() -> None:
    here = Path(__file__).parent
    for file in sorted(FOLDER.glob("*.json")):
        played = (here / f"test_{file.stem}.py").exists()
        assert played or file.name in WAITING, f"nothing plays {file.name}"
