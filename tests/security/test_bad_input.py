"""Bad input through both ways in: a problem with field and code, or an order denied with its reason; nothing else stored, no 500."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oms.runtime import throttle
from oms.runtime.redis import client as redis_client
from orders.models import IdempotencyKey, Order, Submission
from portfolio.models import Account
from risk.models import RiskCheck
from tests.conftest import Desk
from tests.web import BUY, Client, token

pytestmark = pytest.mark.django_db(transaction=True)

NUMBERS = [
    "NaN", "nan", "sNaN", "Infinity", "-Infinity", "inf", "1e3", "1E400", "1e-400", "0x10", "1_000", "1,000", "+1", " 1", "1 ", "１２", "",
    "-0", "0", "-1", "1" * 40, "0." + "1" * 40, "1.", ".5", "--1", "1/3", "٣", "\u0000", "1\u0000", "true", "1;DROP TABLE orders_order",
]  # fmt: skip
KINDS = [None, True, False, 1, -1, 0, [], ["1"], {}, {"value": "1"}]
TEXTS = [
    "", " ", "NO PE", "AAPL\u0000", "AAPL\u202e", "АAPL", "AAPL\n", "😀", "A\u0301", "x" * 1_000, "../etc/passwd", "' OR 1=1 --", "<script>",
]  # fmt: skip


def stored() -> tuple[int, ...]:
    return tuple(m.objects.count() for m in (Order, Submission, IdempotencyKey, RiskCheck))


def refused(answer: Any) -> dict[str, Any]:
    """Return a problem that names a code, and a field unless the whole body is to blame."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert body["code"]
    assert body["detail"]
    assert body["status"] == answer.status_code
    assert "Traceback" not in answer.text
    return body


@pytest.fixture
def alice(live_desk: Desk, door: Any) -> Client:
    return Client(door, token(live_desk.alice))


def test_no_field_takes_what_it_can_not_be(alice: Client) -> None:
    limit = BUY | {"order_type": "limit", "limit_price": "100"}
    cases = [limit | {field: value} for field in ("quantity", "limit_price") for value in (*NUMBERS, *KINDS)]
    cases += [limit | {"stop_price": value} for value in NUMBERS]
    cases += [BUY | {f: v} for f in ("account", "symbol", "side", "order_type") for v in (*TEXTS, *KINDS)]
    cases += [
        BUY | {f: v}
        for f in ("time_in_force", "client_order_id", "broker", "strategy")
        for v in (*TEXTS[1:], *KINDS[1:])
    ]
    cases += [BUY | {"note": v} for v in ("\u0000", "a\nb", "x" * 201, *KINDS[1:])]
    cases += [BUY | {"time_in_force": "gtd", "expire_at": v} for v in ("", "tomorrow", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
              "2026-01-01T00:00:00", "2020-01-01T00:00:00Z", *KINDS)]  # fmt: skip
    cases += [{k: v for k, v in BUY.items() if k != gone} for gone in BUY]
    before = stored()
    for start in range(0, len(cases), 200):  # judged by the batch, each order alone
        part = cases[start : start + 200]
        answer = alice.post("orders/batch", {"orders": part})
        assert answer.status_code in (200, 400), answer.text[:500]
        if answer.status_code == 400:  # a NUL anywhere spoils the body: then one by one
            answers = [alice.post("orders", one) for one in part]
            assert [refused(a)["errors"] for a in answers if refused(a)]
            continue
        for one, result in zip(part, answer.json()["results"], strict=True):
            assert result["status"] == 400, (one, result)
            assert result["problem"]["errors"][0]["field"], (one, result)
    assert stored() == before


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b'{"account":"MAIN","symbol":"AAPL","side":"buy","order_type":"market","quantity":NaN}', 400),
        (b'{"account":"MAIN","symbol":"AAPL","side":"buy","order_type":"market","quantity":Infinity}', 400),
        (b'{"account":"MAIN","symbol":"AAPL","side":"buy","order_type":"market","quantity":1e400}', 400),
        (b'{"account":"MAIN","symbol":"AAPL","side":"buy","order_type":"market","quantity":10.5}', 400),
        (b'{"account":"MAIN","symbol":"AAPL","side":"buy","order_type":"market","quantity":' + b"9" * 40 + b"}", 400),
        (b'{"quantity":' + b"9" * 900_000 + b"}", 400),
        (b'{"a":' * 21 + b"1" + b"}" * 21, 400),
        (b"[" * 500_000 + b"]" * 500_000, 400),
        (b'{"a":"\\ud800"}', 400),
        (b"\x00", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b"", 400),
        (b'{"note":"' + b"x" * (50 * 1_048_576) + b'"}', 413),
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_bodies_end_as_problems_everywhere(alice: Client, raw: bytes, status: int) -> None:
    before = stored()
    for path in ("orders", "orders/batch", "orders/preview", "orders/cancel", "signals"):
        if path == "orders/cancel" and not raw:
            continue  # an empty one cancels all, as it should
        answer = alice.post(path, raw)
        assert refused(answer)["status"] == status, path
    assert stored() == before


def test_a_body_that_never_says_its_length_is_bounded_too(alice: Client) -> None:
    async def endless() -> Any:
        for _ in range(64):
            yield b"x" * 65_536

    answer = alice.call("POST", "orders", None, content=endless(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"account": "ALPHA"}, "unknown_account"), ({"symbol": "NOPE"}, "unknown_symbol"), ({"broker": "NOPE"}, "unknown_broker"),
        ({"strategy": "nope"}, "unknown_strategy"), ({"quantity": "0.5"}, "off_lot"), ({"order_type": "limit", "limit_price": "1.005"}, "off_tick"),
        ({"order_type": "stop", "stop_price": "-1"}, "not_positive"), ({"is_staff": True}, "unknown_field"), ({"role": "admin"}, "unknown_field"),
    ],
)  # fmt: skip
def test_what_is_not_there_or_not_on_the_grid_is_named(alice: Client, change: dict[str, Any], code: str) -> None:
    before = stored()
    for path, body in (("orders", BUY | change), ("orders/preview", BUY | change)):
        problem = refused(alice.post(path, body))
        assert code in {problem["code"], *(e["code"] for e in problem["errors"])}
    [part] = alice.post("orders/batch", {"orders": [BUY | change]}).json()["results"]
    assert part["problem"]["code"] == code
    assert stored() == before


def test_forged_roles_in_headers_and_bodies_give_none(live_desk: Desk, door: Any) -> None:
    otto = Client(door, token(live_desk.otto))
    forged = {
        "X-Role": "admin",
        "X-User": "alice",
        "X-Forwarded-User": "alice",
        "Remote-User": "alice",
        "X-Original-URL": "/admin/",
    }
    assert refused(otto.post("orders", BUY, headers=forged))["code"] == "unknown_account"
    assert refused(otto.post("risk/limits", {}, headers=forged))["status"] == 403


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda desk: Account.objects.update(status="closed"), "account_closed"),
        (lambda desk: _quote(desk, age=3_600), "stale_quote"),
        (lambda desk: _quote(desk, gone=True), "no_quote"),
    ],
    ids=["closed", "stale", "missing"],
)
def test_what_the_desk_can_not_judge_it_denies(live_desk: Desk, door: Any, prepare: Any, reason: str) -> None:
    alice = Client(door, token(live_desk.alice))
    prepare(live_desk)
    answer = alice.post("orders", BUY)
    if answer.status_code == 400:
        assert reason in answer.text
        return
    assert answer.status_code == 201
    assert (answer.json()["status"], answer.json()["reason"]["code"]) == ("denied", reason)
    assert Submission.objects.count() == 0


def _quote(desk: Desk, *, age: float = 0, gone: bool = False) -> None:
    from brokers.models import Quote

    row = Quote.objects.filter(instrument__symbol="AAPL")
    if gone:
        row.delete()
    else:
        row.update(at=datetime.now(UTC) - timedelta(seconds=age))


def test_queries_hold_only_what_is_listed(alice: Client) -> None:
    for query in (
        "ordering=-id", "order_by=account__grants__user__password", "sort=id;drop", "account__grants__user__username=alice", "limit=501",
        "limit=1e3", "limit=０", "cursor=' OR 1=1", "status=new' OR '1'='1", "created_after=0000-00-00", "fields=*", "format=api",
        "&".join(f"x{n}=1" for n in range(2_000)),
    ):  # fmt: skip
        for path in ("orders", "executions"):
            refused(alice.get(f"{path}?{query}"))
    assert len(alice.get("orders?limit=500").json()["results"]) <= 500


# ---------------------------------------------------------------- throttles


def test_entry_closes_and_cancel_and_halt_stay_open_when_redis_is_gone(
    live_desk: Desk, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    alice, rita = Client(door, token(live_desk.alice)), Client(door, token(live_desk.rita))
    made = alice.post("orders", BUY | {"order_type": "limit", "limit_price": "90"}).json()
    dead = redis.Redis(port=1, socket_connect_timeout=0.2, retry=None)
    monkeypatch.setattr(throttle, "client", lambda: dead)
    assert alice.post("orders", BUY).status_code == 201  # counted within the process
    monkeypatch.setattr(throttle, "_count_here", lambda window, *_: (window.per_second + 1, 0))
    assert alice.post("orders", BUY).status_code == 429
    assert alice.post("orders/batch", {"orders": [BUY]}).status_code == 429
    assert alice.post(f"orders/{made['id']}/cancel").status_code == 202
    assert alice.post("orders/cancel", {}).status_code == 202
    halt = {"scope": {"all": True}, "mode": "halt", "reason": "x"}
    assert rita.post("risk/halts", halt).status_code == 201
    assert redis_client() is not dead
    json.dumps(made)
