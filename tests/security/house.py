"""A desk with something of everything in it, and one person of each role to look at it."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.conftest import Desk
from tests.web import BUY, token

ROLES = ("trader", "risk", "ops", "auditor", "admin", "nobody")
"""`trader` is one who has nothing to do with MAIN; `nobody` is signed in and has no role."""
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Program:
    """A program with a token, in the test's own transaction."""

    token: str = ""

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send one request; what a view raises is answered as the server would."""
        given = {"Authorization": f"Token {self.token}"} if self.token else {}
        client = Client(enforce_csrf_checks=True, raise_request_exception=False)
        kind = headers.pop("content_type", "application/json")
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        url = path if path.startswith("/") else f"/api/v1/{path}"
        return client.generic(method, url, raw, content_type=kind, headers=given | headers)

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, {} if body is None else body, **headers)


@dataclass
class House:
    """The desk, what is on it, and a client of each person."""

    desk: Desk
    people: dict[str, Any]
    clients: dict[str, Program]
    owner: Program
    things: dict[str, str] = field(default_factory=dict)
    """What stands in addresses: ids of rows of MAIN, by the name of the place."""

    def secrets(self) -> set[str]:
        """Words that no answer to an outsider may hold."""
        return {self.things["order"], self.things["child"], "canary-order", "MAIN", "alice", self.things["transfer"]}


def furnish(desk: Desk, users: Any) -> House:
    """Give MAIN an order with a fill, a transfer, a limit and a halt; ALPHA belongs to the outsider."""
    from django.contrib.auth.models import Group

    from oms.kernel.actor import Actor
    from oms.kernel.ids import uuid7
    from orders.models import ChildOrder, Execution
    from orders.operations.liquidating import begin
    from orders.operations.reconciling import reconcile
    from portfolio import corporate, statements
    from portfolio import operations as portfolio
    from portfolio.models import Break, LedgerTransaction
    from risk import operations as risk
    from risk.domain.scopes import Scope
    from risk.models import ComplianceBreach

    people = {"trader": desk.otto, "risk": desk.rita, "ops": desk.oona}
    for role in ("auditor", "admin", "nobody"):
        people[role] = users.objects.create_user(f"{role}-person", password="demo")
        if role != "nobody":
            people[role].groups.add(Group.objects.get_or_create(name=role)[0])
    at = datetime.now(UTC)
    portfolio.open_account(code="ALPHA", name="", base_currency="USD", actor=Actor.system("test"), at=at)
    portfolio.grant(account="ALPHA", user="otto", expires_at=None, actor=Actor.system("test"), at=at)
    clients = {r: Program(token(u)) for r, u in people.items()}
    house = House(desk, people, clients, Program(token(desk.alice)))
    [placed] = desk.place("buy 10 AAPL", client_order_id="canary-order", group={"kind": "oto", "id": "canary"})
    desk.send()
    [child] = ChildOrder.objects.filter(order_id=placed.order_id)
    desk.report(_fill(desk, child))
    limit = risk.propose_limit(
        scope=Scope("account", "MAIN"), kind="order_quantity", value=Decimal(5000), currency="", soft=False, effective_from=None,
        reason="calm", actor=desk.actor(desk.rita), at=at,
    )  # fmt: skip
    block = _block(desk, at)
    halt = risk.engage_halt(
        scope=Scope("account", "MAIN"),
        mode="reduce_only",
        reason="calm",
        actor=desk.actor(desk.rita),
        at=datetime.now(UTC),
    )
    dividend = corporate.announce(
        corporate.Announcement(type="cash_dividend", cash=Decimal("0.5"), symbol="MSFT", ex_date=at.date()),
        actor=desk.actor(desk.oona), at=at,
    )  # fmt: skip
    reconciliation = reconcile("NEAR", actor=desk.actor(desk.oona), clock=lambda: datetime.now(UTC))
    statement = statements.import_file(
        b"section,account,symbol,quantity\nposition,MAIN,AAPL,12\n", broker="NEAR", name="x", actor=desk.actor(desk.oona), at=at,
    ).statement  # fmt: skip
    difference = Break.objects.create(
        id=uuid7(), kind="position", broker=statement.broker, account=desk.account, subject="AAPL", ours=Decimal(10),
        theirs=Decimal(12), cause="unexplained", opened_at=at, seen_at=at,
    )  # fmt: skip
    rule = risk.propose_compliance_rule(
        **COMPLIANCE | {"scope": Scope("firm"), "effective_from": at.date()}, actor=desk.actor(desk.rita), at=at
    )
    breach = ComplianceBreach.objects.create(
        id=uuid4(), rule=rule, account=desk.account, day=at.date(), figure=1, limit=0, created_at=at
    )
    house.things = {
        "breach": str(breach.id),
        "statement": str(statement.pk),
        "reconciliation": str(reconciliation.pk),
        "break": str(difference.pk),
        "corporate_action": str(dividend.pk),
        "order": str(placed.order_id),
        "child": str(child.id),
        "account": "MAIN",
        "transfer": str(LedgerTransaction.objects.get(source_kind="transfer", account=desk.account).id),
        "execution": str(Execution.objects.get(order_id=placed.order_id).id),
        "halt": str(halt.id),
        "limit": str(limit.id),
        "liquidation": str(begin(Scope("symbol", "MSFT"), reason="x", actor=desk.actor(desk.rita), at=at).id),
        "broker": "NEAR",
        "rebalance": str(_rebalance(desk, at).pk),
        "block": str(block),
    }
    return house


def _block(desk: Desk, at: datetime) -> Any:
    """MAIN trades for BETA, which is alice's, too."""
    from oms.kernel.actor import Actor
    from orders.operations.allocating import place_block
    from portfolio import operations as portfolio
    from tests.conftest import ticket

    portfolio.open_account(code="BETA", name="", base_currency="USD", actor=Actor.system("test"), at=at)
    portfolio.grant(account="BETA", user="alice", expires_at=None, actor=Actor.system("test"), at=at)
    portfolio.transfer(
        account="BETA", kind="deposit", currency="USD", amount=Decimal(10_000), to="", reason="x", key="x",
        actor=Actor.system("test"), at=at,
    )  # fmt: skip
    block, _ = place_block(ticket("buy 1 AAPL limit 90"), {"BETA": Decimal(1)}, actor=desk.actor(desk.alice), at=at)
    return block.pk


def _rebalance(desk: Desk, at: datetime) -> Any:
    from orders.operations.rebalancing import propose
    from portfolio.domain.options import parse_options
    from portfolio.domain.targets import parse_targets
    from portfolio.models import RebalanceRule
    from portfolio.proposing import Wish

    RebalanceRule.objects.create(account=desk.account)
    targets = {"AAPL": "0.01"}
    made, _ = propose(
        Wish(["MAIN"], targets, parse_targets(targets), parse_options({})), actor=desk.actor(desk.alice), at=at
    )
    return made


def _fill(desk: Desk, child: Any) -> Any:
    [sent] = [m for m in desk.near.sent if m.client_order_id == child.client_order_id]
    return desk.near.report(
        "trade", sent, execution_id="X-1", last_quantity=Decimal(10), last_price=Decimal("100.01"),
        cumulative_quantity=Decimal(10), executed_at=datetime.now(UTC),
    )  # fmt: skip


# ---------------------------------------------------------------- every route, from the URL conf


def api_routes() -> list[tuple[str, str]]:
    """Return (method, address with its places) of everything under /api/v1/, as the URL conf has it."""
    found = []
    for path, view in walk(get_resolver()):
        if not path.startswith("api/v1/"):
            continue
        methods = [m for m in ("GET", *UNSAFE) if hasattr(view.view_class, m.lower())]
        found += [(m, path.removeprefix("api/v1/").replace("<str:", "{").replace(">", "}")) for m in methods]
    return found


def walk(resolver: URLResolver, prefix: str = "") -> list[tuple[str, Any]]:
    """Return every address below a resolver with its view."""
    found: list[tuple[str, Any]] = []
    for entry in resolver.url_patterns:
        path = prefix + str(entry.pattern).removeprefix("^")
        if isinstance(entry, URLPattern):
            found.append((path, entry.callback))
        else:
            found += walk(entry, path)
    return found


# ---------------------------------------------------------------- who may do what, row by row

ALL = frozenset(ROLES)
OFFICERS = frozenset({"risk", "ops", "auditor", "admin"})
DECIDE = {"decision": "approve", "reason": "x"}
SIGNAL = {
    "strategy": "calm", "symbol": "AAPL", "side": "buy", "size_by": {"notional": "1000"}, "account": "MAIN", "key": "matrix",
}  # fmt: skip
BLOCK = {"account": "MAIN", "symbol": "AAPL", "side": "buy", "shares": [{"account": "ALPHA", "quantity": "1"}]}
REBALANCE = {"account": "MAIN", "targets": {"AAPL": "0.01"}, "method": "full"}
COMPLIANCE = {
    "code": "matrix", "kind": "cash_reserve", "parameters": {"least": "0.02"}, "scope": {"firm": True}, "context": "end_of_day",
    "severity": "warn", "source": "policy", "clause": "1", "effective_from": "2026-01-01", "reason": "x",
}  # fmt: skip
DIVIDEND = {"type": "cash_dividend", "symbol": "AAPL", "cash": "0.5", "ex_date": "2026-01-05"}
TRADE = {
    "broker": "NEAR", "symbol": "AAPL", "side": "buy", "quantity": "1", "price": "100", "executed_at": "2026-01-01T00:00:00Z",
    "key": "matrix",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What the matrix expects of one route.

    `may`: the roles that get past the judgement of roles. `place`: what the address names, empty for a list.
    `foreign`: for an outsider who may act, the status that MAIN's object in the address or in `body` must give.
    """

    may: frozenset[str] = ALL
    place: str = ""
    body: Any = None
    foreign: int = 404
    query: str = ""


def now(seconds: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def _order(path: str) -> dict[tuple[str, str], Row]:
    return {("GET", f"orders/{{id}}{path}"): Row(place="order")}


ROWS: dict[tuple[str, str], Row] = {
    ("GET", "orders"): Row(),
    ("POST", "orders"): Row(frozenset({"trader"}), body=BUY, foreign=400),
    ("POST", "orders/batch"): Row(frozenset({"trader"}), body={"orders": [BUY]}, foreign=200),
    ("POST", "orders/preview"): Row(frozenset({"trader"}), body=BUY, foreign=400),
    ("POST", "orders/cancel"): Row(frozenset({"trader"}), body={"account": "MAIN"}, foreign=400),
    ("GET", "orders/updates"): Row(query="account={account}", foreign=400),
    **_order(""),
    **_order("/status"),
    **_order("/children"),
    **_order("/slices"),
    **_order("/executions"),
    **_order("/events"),
    **_order("/routing"),
    **_order("/quality"),
    **_order("/group"),
    ("GET", "analytics/orders/{id}"): Row(place="order"),
    ("GET", "analytics/orders/{id}/evidence"): Row(place="order"),
    ("GET", "analytics/tca"): Row(query="account={account}"),
    ("GET", "analytics/brokers"): Row(query="account={account}"),
    ("POST", "orders/{id}/cancel"): Row(frozenset({"trader"}), "order", {}),
    ("POST", "orders/{id}/pause"): Row(frozenset({"trader"}), "order", {}),
    ("POST", "orders/{id}/resume"): Row(frozenset({"trader"}), "order", {}),
    ("POST", "orders/{id}/group/cancel"): Row(frozenset({"trader"}), "order", {}),
    ("POST", "orders/{id}/replace"): Row(frozenset({"trader"}), "order", {"quantity": "5"}),
    ("POST", "signals"): Row(frozenset({"trader"}), body=SIGNAL, foreign=400),
    ("GET", "executions"): Row(),
    ("GET", "fees/variance"): Row(OFFICERS),
    ("POST", "executions/{id}/bust"): Row(frozenset({"ops"}), "execution", {"reason": "x"}),
    ("POST", "executions/{id}/correct"): Row(frozenset({"ops"}), "execution", {"price": "1", "reason": "x"}),
    ("POST", "accounts/{code}/trades"): Row(frozenset({"ops"}), "account", TRADE),
    ("POST", "accounts/{code}/trades/{id}/reverse"): Row(frozenset({"ops"}), "account", {"reason": "x"}),
    ("GET", "risk/limits"): Row(),
    ("POST", "risk/limits"): Row(
        frozenset({"risk"}),
        body={"scope": {"account": "MAIN"}, "kind": "order_quantity", "value": "1", "reason": "x"},
    ),
    ("GET", "risk/approvals"): Row(OFFICERS),
    ("POST", "risk/approvals"): Row(frozenset({"risk", "ops"}), body={"object": str(uuid4()), **DECIDE}),
    ("GET", "risk/account-rules"): Row(),
    ("POST", "risk/account-rules"): Row(frozenset({"risk"}), body={"account": "MAIN", "margin": "cash", "reason": "x"}),
    ("GET", "risk/compliance/rules"): Row(OFFICERS),
    ("POST", "risk/compliance/rules"): Row(frozenset({"risk"}), body=COMPLIANCE),
    ("GET", "risk/compliance/breaches"): Row(OFFICERS),
    ("POST", "risk/compliance/breaches/{id}/dispose"): Row(
        frozenset({"risk"}), "breach", {"disposition": "accepted", "reason": "x"}
    ),
    ("GET", "risk/drop-copy"): Row(OFFICERS),
    ("GET", "risk/locates"): Row(frozenset({*OFFICERS, "trader"})),
    ("POST", "risk/locates"): Row(
        frozenset({"risk", "ops"}),
        body={"account": "MAIN", "symbol": "AAPL", "quantity": "1", "lender": "x", "reference": "x"},
    ),
    ("GET", "risk/headroom"): Row(OFFICERS),
    ("GET", "risk/matrix"): Row(OFFICERS),
    ("GET", "risk/stress"): Row(),
    ("GET", "risk/exposure"): Row(),
    ("POST", "risk/strategies/enable"): Row(
        frozenset({"risk"}), body={"strategy": "calm", "account": "MAIN", "reason": "x"}
    ),
    ("GET", "risk/halts"): Row(),
    ("POST", "risk/halts"): Row(
        frozenset({"risk"}), body={"scope": {"account": "MAIN"}, "mode": "halt", "reason": "x"}
    ),
    ("GET", "risk/liquidations"): Row(OFFICERS),
    ("POST", "risk/liquidations"): Row(frozenset({"risk"}), body={"scope": {"account": "MAIN"}, "reason": "x"}),
    ("GET", "risk/liquidations/{id}"): Row(OFFICERS, "liquidation"),
    ("POST", "risk/halts/{id}/release"): Row(frozenset({"risk"}), "halt", {"reason": "x"}),
    ("GET", "accounts"): Row(),
    ("POST", "accounts"): Row(frozenset({"ops"}), body={"code": "NEW", "base_currency": "USD"}),
    ("GET", "accounts/{code}/positions"): Row(place="account"),
    ("GET", "accounts/{code}/lots"): Row(place="account"),
    ("GET", "accounts/{code}/gains"): Row(place="account"),
    ("GET", "accounts/{code}/lot-policies"): Row(place="account"),
    ("POST", "accounts/{code}/lot-policies"): Row(
        frozenset({"ops"}), "account", {"since": "2030-01-01", "method": "lifo", "reason": "x"}
    ),
    ("GET", "accounts/{code}/ledger"): Row(place="account"),
    ("GET", "accounts/{code}/settlements"): Row(place="account"),
    ("GET", "accounts/{code}/settlement-ladder"): Row(place="account"),
    ("POST", "accounts/{code}/settlements/{id}"): Row(
        frozenset({"ops"}), "account", {"state": "failed", "reason": "x"}
    ),
    ("GET", "accounts/{code}/pnl"): Row(place="account"),
    ("GET", "accounts/{code}/balances"): Row(place="account"),
    ("GET", "accounts/{code}/valuation"): Row(place="account"),
    ("GET", "accounts/{code}/performance"): Row(place="account"),
    ("POST", "accounts/{code}/transfers"): Row(
        frozenset({"ops"}),
        "account",
        {"kind": "deposit", "currency": "USD", "amount": "1", "reason": "x", "key": "matrix"},
    ),
    ("POST", "accounts/{code}/transfers/{id}/reverse"): Row(frozenset({"ops"}), "account", {"reason": "x"}),
    ("POST", "accounts/{code}/grants"): Row(frozenset({"admin"}), "account", {"user": "otto"}),
    ("GET", "blocks"): Row(),
    ("POST", "blocks"): Row(frozenset({"trader"}), body=BLOCK, foreign=400),
    ("GET", "blocks/{id}"): Row(place="block"),
    ("GET", "rebalances"): Row(),
    ("POST", "rebalances"): Row(frozenset({"trader"}), body=REBALANCE, foreign=400),
    ("GET", "rebalances/{id}"): Row(place="rebalance"),
    ("POST", "rebalances/{id}/approve"): Row(frozenset({"trader"}), "rebalance", {}),
    ("POST", "rebalances/{id}/execute"): Row(frozenset({"trader"}), "rebalance", {}),
    ("POST", "rebalances/{id}/cancel"): Row(frozenset({"trader"}), "rebalance", {}),
    ("GET", "model-portfolios"): Row(),
    ("POST", "model-portfolios"): Row(frozenset({"ops", "risk"}), body={"code": "HALF", "targets": {"AAPL": "0.5"}}),
    ("GET", "accounts/{code}/rebalance-rule"): Row(place="account"),
    ("POST", "accounts/{code}/rebalance-rule"): Row(frozenset({"ops", "risk"}), "account", {"every": "never"}),
    ("GET", "corporate-actions"): Row(),
    ("POST", "corporate-actions"): Row(frozenset({"ops"}), body=DIVIDEND),
    ("POST", "corporate-actions/{id}/preview"): Row(frozenset({"ops"}), "corporate_action", {}),
    ("POST", "corporate-actions/{id}/apply"): Row(frozenset({"ops"}), "corporate_action", {}),
    ("POST", "corporate-actions/{id}/reverse"): Row(frozenset({"ops"}), "corporate_action", {"reason": "x"}),
    ("GET", "statements"): Row(OFFICERS),
    ("POST", "statements"): Row(frozenset({"ops"}), body={"broker": "NEAR", "content": "x"}),
    ("POST", "statements/{id}/reverse"): Row(frozenset({"ops"}), "statement", {"reason": "x"}),
    ("GET", "reconciliations"): Row(OFFICERS),
    ("POST", "reconciliations"): Row(frozenset({"ops"}), body={"broker": "NEAR"}),
    ("GET", "reconciliations/{id}"): Row(OFFICERS, "reconciliation"),
    ("GET", "breaks"): Row(),
    ("POST", "breaks/{id}/assign"): Row(frozenset({"ops"}), "break", {"owner": None}),
    ("POST", "breaks/{id}/resolve"): Row(frozenset({"ops"}), "break", {"action": "accept", "reason": "x"}),
    ("POST", "breaks/{id}/reverse"): Row(frozenset({"ops"}), "break", {"reason": "x"}),
    ("GET", "instruments"): Row(),
    ("GET", "quotes"): Row(),
    ("POST", "quotes"): Row(
        frozenset({"ops", "admin"}), body=[{"symbol": "AAPL", "bid": "1", "ask": "2", "at": "2026-01-01T00:00:00Z"}]
    ),
    ("GET", "brokers"): Row(),
    ("POST", "brokers"): Row(
        frozenset({"admin"}), body={"code": "NEW", "name": "New", "adapter": "simulated", "settings": {}}
    ),
    ("GET", "routing/scores"): Row(),
    ("GET", "routing/beliefs"): Row(),
    ("GET", "routing/weights"): Row(),
    ("POST", "routing/weights"): Row(frozenset({"risk", "ops", "admin"}), body={"values": {}, "reason": "x"}),
    ("POST", "routing/weights/{version}/promote"): Row(frozenset({"risk", "ops", "admin"}), body={}),
    ("GET", "routing/comparison"): Row(OFFICERS),
    ("GET", "brokers/{code}"): Row(place="broker"),
    ("GET", "audit"): Row(frozenset({"auditor"})),
    ("GET", "exceptions"): Row(OFFICERS),
}
"""Every route of the API. A new one without a row here fails `test_g01_every_route_has_a_row`."""

OPEN_TO_ALL = {
    "corporate-actions",
    "instruments",
    "quotes",
    "brokers",
    "brokers/{code}",
    "routing/scores",
    "routing/beliefs",
    "routing/weights",
}
"""What everyone signed in may read: it belongs to no account."""


INNER = {"/transfers/": "transfer", "/trades/": "execution", "/settlements/": "execution"}
"""What the id means in an address that names an account before it."""


def address(route: str, things: dict[str, str], place: str) -> str:
    """Return an address with the ids of things in its places."""
    inner = next((i for word, i in INNER.items() if word in route), place)
    return (
        route.replace("{code}", things.get(place, "")).replace("{id}", things.get(inner, "")).replace("{version}", "1")
    )
