"""Reading brokers' files: good lines to the last digit, bad ones by their number, nothing guessed."""

from typing import Any

import pytest

from oms.kernel.errors import Invalid
from portfolio.domain.profiles import TEMPLATES, judge_profile, template_of
from portfolio.domain.statements import Fault, Known, Line, read

KNOWN = Known({"A1": 1, "MAIN": 1, "A2": 2}, {"AAPL": (7, "USD"), "MSFT": (8, "USD")}, frozenset({"USD", "EUR"}))
POSITIONS = "account,symbol,quantity\n"


def lines(text: str | bytes, template: str = "positions", **settings: Any) -> list[Line | Fault]:
    content = text if isinstance(text, bytes) else text.encode()
    return list(read(content, judge_profile(TEMPLATES[template] | settings), KNOWN))


def quantity(cell: str, **settings: Any) -> str | None:
    """Return what one cell reads as, or the code of what is wrong with it."""
    [found] = lines(f'account;symbol;quantity\nA1;AAPL;"{cell}"\n', delimiter=";", **settings)
    return found.code if isinstance(found, Fault) else found.quantity


@pytest.mark.parametrize(
    ("cell", "read_as"),
    [
        ("10", "10"), ("-10.5", "-10.5"), ("+3", "3"), ("(12.50)", "-12.50"), ("7-", "-7"), ("\u22124", "-4"), (".5", "0.5"),
        (" 8 ", "8"), ("1,000", "not_a_number"), ("1.000.000", "not_a_number"), ("1e3", "not_a_number"),
        ("NaN", "not_a_number"), ("", "required"), ("=1+2", "formula_cell"), ("@SUM(A1)", "formula_cell"),
        ("-HYPERLINK(1)", "formula_cell"), ("1" * 16, "out_of_range"), ("0.12345678901", "too_precise"),
        ("0.1234567890000", "0.1234567890000"), ("\u0661", "not_a_number"), ("--1", "formula_cell"), ("1-2", "not_a_number"),
    ],
)  # fmt: skip
def test_numbers(cell: str, read_as: str) -> None:
    assert quantity(cell) == read_as


@pytest.mark.parametrize(
    ("cell", "read_as"),
    [
        ("1.234,50", "1234.50"), ("1234,5", "1234.5"), ("-1.000.000", "-1000000"), ("1,5", "1.5"), ("1.5", "not_a_number"),
        ("12.34.567,8", "not_a_number"), ("1.2345,6", "not_a_number"),
    ],
)  # fmt: skip
def test_continental_numbers(cell: str, read_as: str) -> None:
    assert quantity(cell, decimal=",", thousands=".") == read_as


def test_every_way_to_write_text_leads_to_the_same_lines() -> None:
    plain = "account,symbol,quantity\nA1,AAPL,10\n"
    wanted = lines(plain)
    assert [x.quantity for x in wanted if isinstance(x, Line)] == ["10"]
    for content in (
        b"\xef\xbb\xbf" + plain.encode(), plain.encode("utf-16"), plain.replace("\n", "\r\n").encode(),
        plain.replace("\n", "\r").encode(), b'"account","symbol","quantity"\n"A1","AAPL","10"\n\n,,\n',
    ):  # fmt: skip
        assert [x._replace(line=2) for x in lines(content) if isinstance(x, Line)] == wanted, content
    assert lines("k\xf6nto;quantity;symbol\nA1;10;AAPL\n".encode("cp1252"), delimiter=";", encoding="cp1252",
                 columns={"account": "k\xf6nto"}) == wanted  # fmt: skip


def test_bad_lines_are_told_by_their_number_and_the_good_ones_stay() -> None:
    found = lines(
        b"account,symbol,quantity\nA1,AAPL,10\nA9,AAPL,1\nA1,NOPE,1\nA1,MSFT\nA1,\xff\xfe,1\n"
        b'A1,"MS\nFT",1\n=cmd,AAPL,1\nA1,AAPL,10\nA2,AAPL,5\n'
    )
    assert [(f.line, f.code) for f in found if isinstance(f, Fault)] == [
        (3, "unknown_account"), (4, "unknown_symbol"), (5, "wrong_width"), (6, "not_text"), (7, "not_text"),
        (9, "formula_cell"), (10, "duplicate_line"),
    ]  # fmt: skip
    assert [(x.line, x.account_id, x.quantity) for x in found if isinstance(x, Line)] == [(2, 1, "10"), (11, 2, "5")]


def test_a_quote_that_never_ends_is_one_fault_and_the_end() -> None:
    found = lines('account,symbol,quantity\nA1,AAPL,1\nA2,"AAPL,1\n' + "A1,MSFT,2\n" * 50)
    assert [type(x).__name__ for x in found] == ["Line", "Fault"]
    assert (found[1].line, getattr(found[1], "code", "")) == (3, "not_a_line")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"), (b"\n\n", "empty_file"), (b"account,symbol\n", "missing_column"),
        (b"account,account,symbol,quantity\n", "duplicate_column"), (b"\x00\x01\x02PK\x03\x04", "missing_column"),
    ],
)  # fmt: skip
def test_what_is_no_table_at_all_is_refused_whole(content: bytes, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        lines(content)
    assert refused.value.code == code


def test_fills_with_their_words_and_times() -> None:
    text = (
        "TIME|ACCT|SIDE|QTY|PX|ID|SYM\n"
        "25.11.2026 09:30:00|U1|BOT|1 000|101,5|X1|AAPL US\n"
        "25.11.2026 09:31:00|U1|cover|2|101|X2|AAPL US\n"
        "31.02.2026 09:31:00|U1|SLD|2|101|X3|AAPL US\n"
        "TOTAL||||||\n"
    )
    found = lines(
        text, "fills", delimiter="|", decimal=",", thousands=" ", times="%d.%m.%Y %H:%M:%S", timezone="America/New_York",
        symbols={"AAPL US": "AAPL"}, accounts={"U1": "A1"}, ignore={"TIME": ["TOTAL"]},
        columns={"at": "TIME", "account": "ACCT", "side": "SIDE", "quantity": "QTY", "price": "PX", "reference": "ID",
                 "symbol": "SYM"},
    )  # fmt: skip
    first = found[0]
    assert isinstance(first, Line)
    assert (first.side, first.quantity, first.price, first.at) == ("buy", "1000", "101.5", "2026-11-25T14:30:00+00:00")
    assert [(f.line, f.code) for f in found[1:] if isinstance(f, Fault)] == [(3, "unknown_side"), (4, "not_a_time")]


def test_one_file_of_all_sections_and_its_template() -> None:
    text = (
        "section,account,symbol,currency,quantity,amount,side,price,fees,reference,order_reference,action,undoes,at\n"
        "position,MAIN,AAPL,USD,10,,,,,,,,,\n"
        "cash,MAIN,,USD,,-1000.5,,,,,,,,\n"
        "fill,MAIN,AAPL,,10,,buy,100,0.35,X1,C1,,,2026-11-25T14:30:00Z\n"
        "fill,MAIN,AAPL,,10,,buy,100,,X2,C1,bust,X1,2026-11-25T14:31:00Z\n"
        "order,MAIN,MSFT,,5,,sell,200,,B9,C9,new,,\n"
        "margin,MAIN,,,,,,,,,,,,\n"
        "cash,MAIN,,GBP,,1,,,,,,,,\n"
        "position,MAIN,MSFT,EUR,1,,,,,,,,,\n"
    )
    found = lines(text, "standard")
    assert [x.section for x in found if isinstance(x, Line)] == ["position", "cash", "fill", "fill", "order"]
    assert [f.code for f in found if isinstance(f, Fault)] == ["unknown_section", "unknown_currency", "wrong_currency"]
    assert template_of(judge_profile({})).startswith(text.splitlines()[0])


@pytest.mark.parametrize(
    "settings",
    [
        [], {"nope": 1}, {"columns": {"x": "y"}}, {"section": "margin"}, {"decimal": "x"}, {"decimal": ",", "thousands": ","},
        {"encoding": "no-such"}, {"timezone": "Mars/North"}, {"skip": -1}, {"sides": {"B": "up"}}, {"ignore": {"a": "b"}},
        {"delimiter": "ab"}, {"timezone": "../etc/passwd"},
    ],
)  # fmt: skip
def test_settings_that_no_file_can_be_read_by_are_refused(settings: Any) -> None:
    with pytest.raises(Invalid) as refused:
        judge_profile(settings)
    assert refused.value.code == "bad_profile"
