"""Random books on both sides: breaks explain exactly what differs, and once corrected nothing differs any more."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from django.db.models import F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers import queries
from brokers.adapters.port import Report, ReportKind
from brokers.models import Broker, BrokerAccount, Listing
from oms.kernel.decimals import text
from orders.models import Submission
from orders.operations import manual, resolving
from orders.operations.reconciling import reconcile
from portfolio import statements
from portfolio.models import Account, Break, BrokerLink
from risk.models import Halt
from tests.conftest import Desk

BOTH, OURS, THEIRS, QUANTITY, PRICE = "both", "ours", "theirs", "quantity", "price"
NAMES = count(1)
pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Drawn:
    """A fill that happened, and who knows what of it."""

    symbol: str
    buys: bool
    quantity: int
    price: int
    known: str

    def theirs(self) -> tuple[int, int]:
        return self.quantity + (self.known == QUANTITY), self.price + (self.known == PRICE)


fills = st.builds(
    Drawn, st.sampled_from(["AAPL", "MSFT"]), st.booleans(), st.integers(1, 9), st.integers(90, 110),
    st.sampled_from([BOTH, BOTH, BOTH, OURS, THEIRS, QUANTITY, PRICE]),
)  # fmt: skip


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(fills, min_size=1, max_size=6),
    more=st.dictionaries(st.sampled_from(["AAPL", "MSFT"]), st.integers(-5, 5), max_size=2),
    cash=st.integers(-300, 300),
)
def test_breaks_explain_exactly_what_differs(desk: Desk, drawn: list[Drawn], more: dict[str, int], cash: int) -> None:
    # an answer without anything that we have is no fact: the broker always knows of two fills, and of both symbols
    drawn = [Drawn("AAPL", True, 80, 100, BOTH), Drawn("MSFT", True, 90, 100, BOTH), *drawn]
    code = _broker(desk)
    # a correction to more than was ordered lets the account only reduce until somebody has looked: here somebody has
    Halt.objects.update(released_at=F("engaged_at"), released_by="user:rita")
    ours, theirs = _book(desk, code, drawn)
    held = {s: theirs[s] + more.get(s, 0) for s in ("AAPL", "MSFT")}
    money = theirs["USD"] + cash
    at = datetime.now(UTC)
    lines = ["section,account,symbol,currency,quantity,amount,side,price,reference,order_reference,at,fees"]
    lines += [f"position,A1,{s},,{q},,,,,,," for s, q in held.items()] + [f"cash,A1,,USD,,{money},,,,,,"]
    lines += _fills(code, drawn)
    statements.import_file(
        "\n".join(lines).encode(), broker=code, name="drawn", as_of=at, actor=desk.actor(desk.oona), at=at
    )
    _run(desk, code)
    found = {(b.kind, b.subject): b for b in _open(code)}
    wanted = {
        (kind, f"{code}-{n}")
        for n, f in enumerate(drawn)
        if (kind := {OURS: "unknown_fill", THEIRS: "missing_fill", QUANTITY: "fill", PRICE: "fill"}.get(f.known))
    }
    wanted |= {("position", s) for s in held if held[s] != ours[s]} | (
        {("cash", "USD")} if money != ours["USD"] else set()
    )
    assert set(found) == wanted
    for (kind, subject), row in found.items():
        if kind in ("position", "cash"):
            assert (row.theirs or 0) - (row.ours or 0) == (held | {"USD": money})[subject] - ours[subject]
    for kinds in (("missing_fill", "unknown_fill", "fill"), ("position", "cash")):
        for row in _open(code):
            if row.kind in kinds:
                _approve(desk, row)
        _run(desk, code)
    assert _open(code) == []
    desk.holds()


def _broker(desk: Desk) -> str:
    """Return a broker of its own for one example, with MAIN linked to it."""
    number = next(NAMES)
    code = f"R{number}"
    broker = Broker.objects.create(code=code, adapter="scripted", settings={"name": code})
    kept = BrokerAccount.objects.create(broker=broker, external_id="A1")
    BrokerLink.objects.create(account=Account.objects.get(code="MAIN"), broker=broker, broker_account=kept)
    near = Broker.objects.get(code="NEAR")
    Listing.objects.bulk_create(
        Listing(instrument=x.instrument, broker=broker, symbol=x.symbol, tick_size=x.tick_size, lot_size=x.lot_size)
        for x in near.listings.select_related("instrument")
    )
    queries.forget_cache()
    return code


def _book(desk: Desk, code: str, drawn: list[Drawn]) -> tuple[dict[str, int], dict[str, int]]:
    """Let the desk know of the fills that it is to know; return what it and what the broker then has."""
    ours = {"AAPL": 0, "MSFT": 0, "USD": 0}
    theirs = dict(ours)
    for n, f in enumerate(drawn):
        sign = 1 if f.buys else -1
        if f.known != THEIRS:
            [placed] = desk.place(f"{'buy' if f.buys else 'sell'} {f.quantity} {f.symbol}", broker=code)
            sent = Submission.objects.filter(child__order_id=placed.order_id).first()
            assert sent is not None, desk.order(placed).reason_detail
            desk.send(code)
            desk.report(_report(code, n, f, sent.client_order_id), code=code)
            ours[f.symbol] += sign * f.quantity
            ours["USD"] -= sign * f.quantity * f.price
        if f.known != OURS:
            quantity, price = f.theirs()
            theirs[f.symbol] += sign * quantity
            theirs["USD"] -= sign * quantity * price
    return ours, theirs


def _time(n: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5) + timedelta(seconds=n)


def _report(code: str, n: int, f: Drawn, client_order_id: str) -> Report:
    return Report(
        kind=ReportKind.TRADE, client_order_id=client_order_id, account="A1", symbol=f.symbol, side="buy" if f.buys else "sell",
        order_status="filled", order_quantity=Decimal(f.quantity), cumulative_quantity=Decimal(f.quantity),
        leaves_quantity=Decimal(0), execution_id=f"{code}-{n}", last_quantity=Decimal(f.quantity), last_price=Decimal(f.price),
        executed_at=_time(n),
    )  # fmt: skip


def _fills(code: str, drawn: list[Drawn]) -> list[str]:
    told = []
    for n, f in enumerate(drawn):
        if f.known != OURS:
            quantity, price = f.theirs()
            side = "buy" if f.buys else "sell"
            told.append(
                f"fill,A1,{f.symbol},,{quantity},,{side},{text(Decimal(price))},{code}-{n},,{_time(n).isoformat()},"
            )
    return told


def _run(desk: Desk, code: str) -> None:
    at = datetime.now(UTC)
    oona = desk.actor(desk.oona)
    run = reconcile(code, on=at.date(), override="drawn by lot", actor=oona, clock=lambda: at)
    assert run.state == "done", run.detail


def _open(code: str) -> list[Break]:
    return [b for b in Break.objects.filter(broker__code=code).order_by("id") if b.state != "closed"]


def _approve(desk: Desk, row: Break) -> Any:
    at = datetime.now(UTC)
    assert row.proposal is not None, (row.kind, row.cause)
    resolving.propose(row.pk, row.proposal["action"], reason="x", actor=desk.actor(desk.oona), at=at)
    manual.decide(row.pk, "approve", reason="x", actor=desk.actor(desk.omar), at=at)
