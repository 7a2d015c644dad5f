"""The page of reason codes says what the code says."""

from docs.generate_reasons import PAGE, render
from oms.kernel.reasons import Reason


def test_the_page_of_reason_codes_is_fresh() -> None:
    assert PAGE.read_text() == render(), "stale: run .venv/bin/python -m docs.generate_reasons"


def test_every_reason_is_a_code_with_a_sentence() -> None:
    for reason in Reason:
        assert reason.value == reason.name.lower()
        assert reason.sentence.endswith(".")
