"""Bad tickets get every fault named; good ones are exact."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.kernel import decimals
from oms.kernel.errors import Invalid, InvalidFields
from orders.domain.tickets import parse_ticket

AT = datetime(2026, 11, 23, tzinfo=UTC)
GOOD = {"account": "MAIN", "symbol": "AAPL", "side": "buy", "quantity": "10", "order_type": "market"}


def faults(raw: object) -> set[tuple[str, str]]:
    with pytest.raises(InvalidFields) as caught:
        parse_ticket(raw, at=AT)
    return {(e.field, e.code) for e in caught.value.errors}


class TestParseTicket:
    def test_keeps_the_number_exact(self) -> None:
        assert parse_ticket(GOOD | {"quantity": "0.1000000001"}, at=AT).quantity == Decimal("0.1000000001")

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"quantity": 10}, ("quantity", "not_a_decimal_string")),
            ({"quantity": 0.1}, ("quantity", "not_a_decimal_string")),
            ({"quantity": "NaN"}, ("quantity", "not_a_decimal")),
            ({"quantity": "Infinity"}, ("quantity", "not_a_decimal")),
            ({"quantity": "1e5"}, ("quantity", "not_a_decimal")),
            ({"quantity": "１２"}, ("quantity", "not_a_decimal")),
            ({"quantity": " 1"}, ("quantity", "not_a_decimal")),
            ({"quantity": "-1"}, ("quantity", "not_positive")),
            ({"quantity": "0"}, ("quantity", "not_positive")),
            ({"quantity": "9" * 40}, ("quantity", "out_of_range")),
            ({"quantity": "0." + "1" * 20}, ("quantity", "too_precise")),
            ({"side": "hold"}, ("side", "not_a_choice")),
            ({"order_type": "limit"}, ("limit_price", "required")),
            ({"limit_price": "1"}, ("limit_price", "not_allowed")),
            ({"time_in_force": "gtd"}, ("expire_at", "required")),
            ({"symbol": "AA\u202ePL"}, ("symbol", "not_an_identifier")),
            ({"status": "filled"}, ("status", "unknown_field")),
            ({"algo": {"name": "wheel"}}, ("algo.name", "not_a_choice")),
        ],
    )
    def test_names_the_field_and_the_fault(self, change: dict[str, Any], fault: tuple[str, str]) -> None:
        assert fault in faults(GOOD | change)

    def test_tells_all_faults_at_once(self) -> None:
        assert len(faults({"account": "MAIN", "symbol": 1, "side": 2, "quantity": None})) >= 3

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        )
    )
    def test_any_json_is_a_ticket_or_named_faults(self, raw: object) -> None:
        try:
            parse_ticket(raw, at=AT)
        except InvalidFields as error:
            assert error.errors


class TestDecimals:
    @given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**14), max_value=10**14, places=10))
    def test_text_and_parse_are_inverse(self, value: Decimal) -> None:
        assert decimals.parse(decimals.text(value)) == value

    @given(st.text())
    def test_parse_gives_finite_bounded_numbers_or_invalid(self, text: str) -> None:
        try:
            value = decimals.parse(text)
        except Invalid:
            return
        assert value.is_finite()
        assert abs(value) < decimals.BOUND
