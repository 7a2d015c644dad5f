"""Every invariant fires when its rule is broken, and none does on clean data."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module

import pytest
from django.core.management import call_command
from django.db import connection

from oms.journal import queries as audit
from oms.management.commands.check_invariants import APPS, violations
from portfolio import rebuilding
from tests.conftest import Desk

PROFIT = "id IN (SELECT order_id FROM orders_groupleg WHERE role = 'take_profit')"
CORRUPTIONS = {
    "I01": "UPDATE orders_childorder SET filled_quantity = 9, leaves_quantity = 0 WHERE status = 'filled' AND quantity = 10",
    "I02": "ALTER TABLE orders_order DROP CONSTRAINT order_leaves_add_up; "
    "UPDATE orders_order SET leaves_quantity = 3 WHERE status = 'filled'",
    "I03": "UPDATE orders_order SET filled_quantity = 4 WHERE status = 'filled'",
    "I05": "ALTER TABLE orders_execution DROP CONSTRAINT execution_unique; "
    "INSERT INTO orders_execution SELECT (r).* FROM (SELECT e #= hstore('id', gen_random_uuid()::text) AS r FROM orders_execution e) x",
    "I06": "UPDATE orders_execution SET kind = 'bust'",
    "I07": "UPDATE orders_execution SET side = 'sell'",
    "I08 ": "UPDATE portfolio_brokerposition SET quantity = 11",
    "I08a": "UPDATE portfolio_lot SET remaining = 7",
    "I08b": "UPDATE portfolio_position SET cost = cost + 1",
    "I09": "UPDATE portfolio_ledgerentry SET amount = amount + 1 WHERE code = 'cash'",
    "I10": "UPDATE portfolio_ledgerentry SET amount = amount + 1 WHERE code = 'cash'",
    "I11": "DELETE FROM portfolio_ledgertransaction WHERE source_kind = 'execution'",
    "I12": "UPDATE portfolio_cashbalance SET balance = balance + 1",
    "I13": "ALTER TABLE portfolio_ledgerentry DROP CONSTRAINT ledger_entry_amount_bounded; "
    "UPDATE portfolio_ledgerentry SET amount = 'NaN'",
    "I14": "UPDATE risk_exposure SET buying = buying + 5",
    "I15": "UPDATE risk_hold SET open_quantity = 5 WHERE open_quantity = 0",
    "I16": "UPDATE orders_submission SET sent_at = created_at - interval '1 second' WHERE sent_at IS NOT NULL",
    "I17": "ALTER TABLE orders_submission DROP CONSTRAINT submission_client_id_unique; "
    "UPDATE orders_submission SET client_order_id = 'same'",
    "I20": "UPDATE orders_submission SET state = 'unknown', sent_at = now() - interval '6 minutes'",
    "I21": "UPDATE orders_order SET version = version + 1",
    "I22": "UPDATE journal_event SET body = replace(body, '[[\"pending_new\",', '[[\"held\",') WHERE frame = 'order' "
    "AND body LIKE '%[[\"pending_new\",%'; UPDATE journal_event SET body = "
    'regexp_replace(body, \'"transitions":\\[\\]\', \'"transitions":[["new","expired"]]\') WHERE kind = \'order.placed\'',
    "I24": "UPDATE orders_submission SET state = 'prepared', due_at = now() - interval '2 minutes'",
    "I24b": "INSERT INTO orders_parkedreport (id, broker_id, waits_for, report, received_at) "
    "SELECT gen_random_uuid(), min(id), 'mending:KeyError', '{}', now() FROM brokers_broker",
    "I25": "ALTER TABLE orders_idempotencykey DROP CONSTRAINT idempotency_key_unique; "
    "UPDATE orders_idempotencykey SET key = 'same'",
    "I26": "INSERT INTO risk_halt (id, scope_kind, scope_key, mode, reason, engaged_by, engaged_at, released_by, release_reason) "
    "VALUES (gen_random_uuid(), 'all', '', 'halt', 'x', 'x', now() - interval '1 day', '', '')",
    "I30": "UPDATE orders_trigger SET fired_at = now()",
    "I27 ": "UPDATE portfolio_settlement SET state = 'canceled'",
    "I27a": "UPDATE portfolio_settlement SET amount = amount + 1 WHERE state = 'pending'",
    "I31": "INSERT INTO portfolio_corporateaction (id, type, instrument_id, cash, currency, ex_date, pay_date, state, reason, "
    "created_by, created_at) SELECT gen_random_uuid(), 'cash_dividend', min(id), 1, 'USD', '2026-01-01', '2026-01-01', "
    "'reversed', '', 'x', now() FROM brokers_instrument; INSERT INTO portfolio_entitlement (id, action_id, account_id, quantity, "
    "amount, currency, transaction_id, at) SELECT gen_random_uuid(), a.id, x.account_id, 1, 1, 'USD', x.id, now() "
    "FROM portfolio_corporateaction a, portfolio_ledgertransaction x LIMIT 1",
    "I50": "UPDATE portfolio_trade SET price = price + 1",
    "I28": "UPDATE risk_riskcheck SET approved = false",
    "I32": "ALTER TABLE orders_order DROP CONSTRAINT order_leaves_add_up; UPDATE orders_order SET status = 'held'",
    "I33": "UPDATE orders_algo SET state = 'over', ended_as = 'canceled'",
    "I34": "UPDATE orders_algoslice SET state = 'skipped', child_id = NULL, quantity = NULL WHERE number = 1",
    "I35": "UPDATE orders_algoslice SET number = 9 WHERE number = 1",
    "I36": "UPDATE orders_algoslice SET due_at = now() - interval '2 minutes' WHERE state = 'planned'",
    "I37": "INSERT INTO orders_block (order_id, state, quantity, allocated, allocated_amount, allocated_fees, body_hash, created_at) "
    "SELECT id, 'working', quantity, 0, 0, '{}', body_hash, now() FROM orders_order LIMIT 1",
    "I40": f"UPDATE orders_order SET status = 'held' WHERE {PROFIT}",
    "I41": f"UPDATE orders_order SET filled_quantity = 1, leaves_quantity = 3 WHERE {PROFIT}",
    "I42": "UPDATE orders_ordergroup SET excess = 1",
    "I43": f"UPDATE orders_order SET instrument_id = (SELECT id FROM brokers_instrument WHERE symbol = 'AAPL') WHERE {PROFIT}",
    "I44": f"UPDATE orders_order SET instructions = NULL WHERE {PROFIT}",
    "I29": "UPDATE risk_limit SET maker_id = (SELECT min(id) FROM auth_user), approver_id = (SELECT min(id) FROM auth_user)",
}


@pytest.fixture
def traded(desk: Desk) -> Desk:
    """A desk with one filled order, one working order, keys used, and a bracket whose exits work."""
    from orders import operations
    from orders.operations import Request
    from tests.conftest import ticket

    requests = [
        Request(ticket("buy 10 AAPL"), desk.actor(desk.alice), "key-1"),
        Request(ticket("buy 5 MSFT limit 150.00"), desk.actor(desk.alice), "key-2"),
        Request(
            ticket("buy 1 MSFT", order_type="market_if_touched", stop_price="100.00"), desk.actor(desk.alice), "key-3"
        ),
        Request(ticket("buy 20 MSFT", algo={"name": "twap", "slices": 4, "vary_time": "0"}), desk.actor(desk.alice)),
    ]
    operations.place(requests, actor=desk.actor(desk.alice), at=desk.at)
    operations.work(owner="test", at=desk.at)
    desk.send()
    first, second, _slice = desk.near.sent
    filled = desk.near.report(
        "trade", first, execution_id="E1", last_quantity=Decimal(10), last_price=Decimal(100), executed_at=desk.at
    )
    desk.report(desk.near.report("new", first), filled, desk.near.report("new", second))
    desk.place("buy 4 MSFT", take_profit={"limit_price": "300"}, stop_loss={"stop_price": "90"})
    desk.send()
    entry = desk.near.sent[-1]
    opened = desk.near.report(
        "trade", entry, execution_id="E2", last_quantity=Decimal(4), last_price=Decimal(200), executed_at=desk.at
    )
    desk.report(desk.near.report("new", entry), opened)
    operations.follow_groups(at=datetime.now(UTC))
    desk.send()
    desk.report(*(desk.near.report("new", m) for m in desk.near.sent[-2:]))
    operations.follow_groups(at=datetime.now(UTC))
    return desk


def test_clean_data_breaks_none(traded: Desk) -> None:
    traded.holds()


def test_every_invariant_has_a_corruption() -> None:
    names = [n for app in APPS for n in import_module(f"{app}.invariants").PREDICATES]
    assert [n for n in names if not any(n.startswith(c) for c in CORRUPTIONS)] == []


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_a_corruption_is_caught(traded: Desk, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; CREATE EXTENSION IF NOT EXISTS hstore")
        cursor.execute("SET LOCAL session_replication_role = replica")  # past the triggers, as a superuser could go
        cursor.execute(CORRUPTIONS[name])
        assert cursor.rowcount != 0, "the corruption changed nothing"
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")
    assert any(n.startswith(name) and rows for n, rows in violations().items())


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE journal_event SET actor = 'user:nobody' WHERE sequence = 2",
        "UPDATE journal_event SET body = replace(body, 'AAPL', 'MSFT')",
        "DELETE FROM journal_event WHERE sequence = 2 AND stream_id = (SELECT id FROM journal_stream WHERE name = 'account:MAIN')",
        "DELETE FROM journal_event e USING journal_stream s WHERE s.id = e.stream_id AND e.sequence = s.sequence",
    ],
)
def test_tampering_with_the_audit_trail_shows(traded: Desk, tampering: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(tampering)
        assert cursor.rowcount
    assert list(audit.faults())


@pytest.mark.parametrize("table", ["orders_execution", "journal_event", "portfolio_ledgerentry", "risk_riskcheck"])
def test_facts_refuse_to_change(traded: Desk, table: str) -> None:
    from django.db import IntegrityError, transaction

    for statement in (f"UPDATE {table} SET id = id", f"DELETE FROM {table}"):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


@pytest.mark.parametrize(
    ("corruption", "name"),
    [
        ("UPDATE portfolio_lot SET price = price + 1", "lots"),
        ("UPDATE portfolio_position SET realized = 5, cost = cost + 5", "positions"),
        ("UPDATE portfolio_brokerposition SET quantity = 11", "what each broker holds"),
        ("UPDATE portfolio_cashbalance SET balance = balance + 1", "cash"),
        ("DELETE FROM portfolio_lot", "lots"),
    ],
)
def test_what_is_not_as_it_would_be_built_shows(traded: Desk, corruption: str, name: str) -> None:
    assert not any(rebuilding.differences().values())
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(corruption)
        assert cursor.rowcount
    assert next(n for n, rows in rebuilding.differences().items() if rows).startswith(name)


def test_the_command_rebuilds_and_tells_the_trial_balance(traded: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("check_invariants", "--rebuild", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["violations"] == {}
    by_currency = {b["currency"] for b in told["trial_balance"]}
    for currency in by_currency:
        lines = [b for b in told["trial_balance"] if b["currency"] == currency]
        assert sum(Decimal(b["debits"]) - Decimal(b["credits"]) for b in lines) == 0
