"""The blotter list over old books: the right orders, each page read off an index, whatever is asked for."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from brokers.queries import forget_cache
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.management.commands.seed_demo import seed
from orders import queries
from orders.models import Order
from orders.states import OPEN
from portfolio.models import Account
from tests.benchmarks.lists import FILTERS, cursor, timed, write

ORDERS_TO_PLAN = 20_000
ORDERS_TO_COMPARE = 2_000
LIMIT = 101
READ_MAX = 3_000
"""Rows that a page may cost: its own, of each account and each table, and what the filters throw away between."""
NOW = datetime.now(UTC)
PAGES = [(wanted, days) for wanted in FILTERS for days in (None, 1, 125, 248)]


@pytest.fixture
def old_books(db: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """The demo desk with so many orders of the last 250 days."""
    forget_cache()
    queries.forget_codes()
    seed(NOW, Actor.system("test"))
    forget_cache()
    write(connection.connection, request.param)
    with connection.cursor() as told:
        told.execute("ANALYZE orders_order, orders_childorder")
    yield
    forget_cache()
    queries.forget_codes()


def asked(wanted: dict[str, str]) -> tuple[list[int], dict[str, Any], bool]:
    """Return the accounts, filters and flag that the view makes of a request by the demo trader."""
    filters: dict[str, Any] = timed(wanted, NOW)
    codes = [filters.pop("account")] if "account" in filters else ["MAIN", "EURO"]
    for name in ("created_after", "created_before"):
        if name in filters:
            filters[name] = datetime.fromisoformat(filters[name])
    if "parent" in filters:
        filters["parent"] = UUID(filters["parent"])
    open_only = bool(filters.pop("open", None))
    return list(Account.objects.filter(code__in=codes).values_list("id", flat=True)), filters, open_only


def page(wanted: dict[str, str], days: int | None) -> list[dict[str, Any]]:
    accounts, filters, open_only = asked(wanted)
    return queries.list_orders(accounts, filters, before=cursor(days, NOW), limit=LIMIT, open_only=open_only)


@pytest.mark.parametrize("old_books", [ORDERS_TO_COMPARE], indirect=True)
def test_every_page_holds_the_newest_orders_that_fit(old_books: None) -> None:
    every = list(Order.objects.select_related("instrument", "strategy").prefetch_related("children").order_by("-id"))
    codes = {b.id: b.code for b in queries.brokers.brokers().values()}
    found = 0
    for wanted, days in PAGES:
        accounts, f, open_only = asked(wanted)
        before = cursor(days, NOW)
        fits = [
            str(o.id)
            for o in every
            if o.account_id in accounts
            and (before is None or o.id < before)
            and f.get("symbol", o.instrument.symbol) == o.instrument.symbol
            and f.get("status", o.status) == o.status
            and f.get("side", o.side) == o.side
            and f.get("parent", o.parent_id) == o.parent_id
            and f.get("client_order_id", o.client_order_id) == o.client_order_id
            and ("strategy" not in f or (o.strategy is not None and o.strategy.code == f["strategy"]))
            and ("broker" not in f or f["broker"] in {codes[c.broker_id] for c in o.children.all()})
            and o.created_at >= f.get("created_after", o.created_at)
            and ("created_before" not in f or o.created_at < f["created_before"])
            and (not open_only or o.status in OPEN)
        ]
        rows = [row["id"] for row in page(wanted, days)]
        assert rows == fits[:LIMIT], (wanted, days)
        found += len(rows)
    assert found > 1_000


@pytest.mark.parametrize("old_books", [ORDERS_TO_PLAN], indirect=True)
def test_every_page_is_read_off_an_index(old_books: None) -> None:
    for wanted, days in PAGES:
        with CaptureQueriesContext(connection) as queried:
            page(wanted, days)
        statement = next(q["sql"] for q in reversed(queried.captured_queries) if '"orders_order"' in q["sql"])
        with connection.cursor() as told:
            told.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement.replace("%", "%%"))
            plan = told.fetchone()[0]
        nodes = list(scans((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))
        assert nodes, (wanted, days)
        assert all(n["Node Type"] != "Seq Scan" for n in nodes), (wanted, days, plan)
        assert sum(map(rows_read, nodes)) <= READ_MAX, (wanted, days, sum(map(rows_read, nodes)), plan)


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan that read the two tables."""
    if node.get("Relation Name") in ("orders_order", "orders_childorder"):
        yield node
    for inner in node.get("Plans", ()):
        yield from scans(inner)


def rows_read(node: dict[str, Any]) -> float:
    """Return how many rows a node looked at in all its loops."""
    each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float(each * node["Actual Loops"])
