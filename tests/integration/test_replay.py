"""Recorded quotes come in as they were, moved to now; a bad file is told by its line."""

from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from brokers.models import Quote
from tests.conftest import Desk

HEAD = "symbol,at,bid,ask,bid_size,ask_size\n"


def test_the_last_quote_stands_with_its_own_time_beside(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "quotes.csv"
    file.write_text(
        HEAD
        + "AAPL,2026-01-02T10:00:00Z,100.10,100.12,0.014596000000000001,5\n"
        + "AAPL,2026-01-02T10:00:01Z,100.20,100.22,,\n"
    )
    call_command("replay_quotes", str(file), speed=1000.0)
    quote = Quote.objects.get(instrument__symbol="AAPL")
    assert (quote.bid, quote.ask, quote.source) == (Decimal("100.20"), Decimal("100.22"), "replay")
    assert quote.source_at is not None
    assert quote.source_at.isoformat() == "2026-01-02T10:00:01+00:00"
    assert quote.at > quote.source_at


@pytest.mark.parametrize(
    "line",
    [
        "NOSUCH,2026-01-02T10:00:00Z,1,2,,",
        "AAPL,yesterday,1,2,,",
        "AAPL,2026-01-02T10:00:00Z,NaN,2,,",
        "AAPL,2026-01-02T10:00:00Z,1,2,-5,",
        "AAPL,2026-01-02T10:00:00Z,1,2,NaN,",
    ],
)
def test_a_bad_line_is_told_by_its_number(desk: Desk, tmp_path: Path, line: str) -> None:
    before = Quote.objects.get(instrument__symbol="AAPL").bid
    file = tmp_path / "quotes.csv"
    file.write_text(HEAD + line + "\n")
    with pytest.raises(CommandError, match="line 2"):
        call_command("replay_quotes", str(file))
    assert Quote.objects.get(instrument__symbol="AAPL").bid == before
