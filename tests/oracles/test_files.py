"""Every published file has a player here."""

from pathlib import Path

import pytest

from tests.oracles.reading import FOLDER


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no published cases: {FOLDER} is not there")
def test_no_file_is_passed_over() -> None:
    here = Path(__file__).parent
    for file in sorted(FOLDER.glob("*.json")):
        assert (here / f"test_{file.stem}.py").exists(), f"nothing plays {file.name}"
