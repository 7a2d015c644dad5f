"""Columns packed by us arrive as PostgreSQL would have read them, and instances made for the hot path are whole."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms.kernel.decimals import BOUND
from oms.runtime import arrays, rows, sql
from orders.models import ChildOrder, Order, Submission

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids(),
    "text": TEXT,
    "bytea": st.binary(max_size=40),
    "timestamptz": st.integers(-(10**15), 10**16).map(lambda n: EPOCH + timedelta(microseconds=n)),
    "date": st.dates(date(1900, 1, 1), date(2200, 1, 1)),
    "boolean": st.booleans(),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(-BOUND, BOUND, allow_nan=False, places=10),
}


@pytest.mark.django_db
@pytest.mark.parametrize("kind", sorted(VALUES))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_packed_column_comes_back_as_it_went(kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=8))
    packed = arrays.pack(kind, values)
    back = sql.run(f"SELECT x FROM unnest(%s::{kind}[]) WITH ORDINALITY u(x, n) ORDER BY n", [packed], binary=True)
    assert [r[0] for r in back] == values


@pytest.mark.django_db
def test_a_packed_document_is_json() -> None:
    packed = arrays.pack("jsonb", ['{"a":"ü\\"x"}', None, "[]"])
    assert [r[0] for r in sql.run("SELECT unnest(%s::jsonb[])", [packed], binary=True)] == [{"a": 'ü"x'}, None, []]


def test_what_does_not_fit_its_column_raises() -> None:
    with pytest.raises(AttributeError):
        arrays.pack("uuid", [1])
    with pytest.raises(KeyError):
        arrays.pack("boolean", ["yes"])


@pytest.mark.parametrize("model", [Order, ChildOrder, Submission])
def test_an_instance_made_fast_is_the_one_django_makes(model: Any) -> None:
    pk = UUID(int=7)
    fast, slow = rows.make(model, id=pk), model(id=pk)
    assert {k: v for k, v in vars(fast).items() if k != "_state"} == {
        k: v for k, v in vars(slow).items() if k != "_state"
    }
    assert (fast._state.adding, fast._state.db) == (slow._state.adding, slow._state.db)
    with pytest.raises(TypeError, match="no field colour"):
        rows.make(model, colour="red")


@pytest.mark.django_db
def test_loaded_instances_are_those_of_the_manager(desk: Any) -> None:
    desk.place("buy 10 AAPL")
    for model in (Order, ChildOrder, Submission):
        [fast] = rows.load(model, "", [])
        slow = model.objects.get()
        assert {f.attname: getattr(fast, f.attname) for f in model._meta.concrete_fields} == {
            f.attname: getattr(slow, f.attname) for f in model._meta.concrete_fields
        }
        assert not fast._state.adding
    [partly] = rows.load(Submission, "", [], without=("message",))
    assert "message" not in vars(partly)
    assert partly.message == Submission.objects.get().message
    assert Decimal(partly.message["quantity"]) > 0
    connection.check_constraints()
