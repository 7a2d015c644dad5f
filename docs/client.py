"""A small client of the REST API: place an order, wait for the fill, print the position. Standard library only.

    .venv/bin/python manage.py token trader > token
    python3 docs/client.py --token-file token --account MAIN --symbol AAPL --side buy --quantity 10

It shows what every program that trades needs: an id of its own made before the first call, so that a call whose answer was
lost can be repeated without ordering twice; decimals as strings; problems read by their code.
"""

import argparse
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

CLOSED = {"filled", "canceled", "rejected", "expired", "calculated", "denied"}
CALL_SECONDS_MAX = 10.0
TRIES_MAX = 8
WAIT_FIRST_SECONDS = 0.2


class Problem(Exception):
    """The desk's own refusal (RFC 9457): `code` is stable, `detail` is for people."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.code, self.status = body.get("code", ""), body.get("status")
        faults = "; ".join(f"{e['field']}: {e['detail']}" for e in body.get("errors", []))
        super().__init__(f"{self.code}: {faults or body.get('detail', '')}")


class Desk:
    """The API under one address, as one user."""

    def __init__(self, address: str, token: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise ValueError("the address starts with http:// or https://")
        self.base = f"{address.rstrip('/')}/api/v1/"
        self.headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the answer; raise `Problem` for a 4xx. What may pass later (no connection, 429, 5xx) is tried again.

        Only calls that may be repeated come here: reads, and orders under an id of ours.
        """
        data = None if body is None else json.dumps(body).encode()
        wait = WAIT_FIRST_SECONDS
        for attempt in range(1, TRIES_MAX + 1):
            request = Request(self.base + path, data=data, headers=self.headers, method=method)  # noqa: S310 - the desk's own address - checked above
            try:
                with urlopen(request, timeout=CALL_SECONDS_MAX) as answer:  # noqa: S310
                    return json.load(answer)
            except HTTPError as error:
                if error.code != 429 and error.code < 500:
                    raise Problem(_problem(error)) from None
                if attempt == TRIES_MAX:
                    raise
                wait = max(wait, float(error.headers.get("Retry-After") or 0))
            except (URLError, TimeoutError, ConnectionError):
                if attempt == TRIES_MAX:
                    raise
            time.sleep(wait)
            wait *= 2
        raise AssertionError("unreachable")

    def place(self, **ticket: str) -> dict[str, Any]:
        """Place an order under a new id, or the one given; repeated calls make one order."""
        return dict(self.call("POST", "orders", {"client_order_id": str(uuid.uuid4())} | ticket))

    def order(self, order_id: str) -> dict[str, Any]:
        """Return an order as it stands."""
        return dict(self.call("GET", f"orders/{order_id}"))

    def executions(self, order_id: str) -> list[dict[str, Any]]:
        """Return what was done for an order."""
        return list(self.call("GET", f"orders/{order_id}/executions")["results"])

    def position(self, account: str, symbol: str) -> dict[str, Any] | None:
        """Return the account's position in a symbol, None if it never had one."""
        rows = self.call("GET", f"accounts/{quote(account)}/positions")["results"]
        return next((r for r in rows if r["symbol"] == symbol), None)

    def wait(self, order_id: str, seconds: float) -> dict[str, Any]:
        """Return the order once it is closed, or as it stands when the time is up."""
        deadline, pause = time.monotonic() + seconds, 0.05
        while True:
            order = self.order(order_id)
            if order["status"] in CLOSED or time.monotonic() > deadline:
                return order
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)


def _problem(error: HTTPError) -> dict[str, Any]:
    try:
        return dict(json.load(error))
    except ValueError:
        return {"code": str(error.code), "status": error.code, "detail": error.reason}


def run(desk: Desk, ticket: dict[str, str], seconds: float) -> int:
    """Place, wait, tell; return 0 if all of it was filled."""
    order = desk.place(**ticket)
    print(f"{order['id']}  {order['side']} {order['quantity']} {order['symbol']}: {order['status']}")
    if order["status"] == "denied":
        print(f"  {order['reason']['code']}: {order['reason']['detail']}")
        return 1
    order = desk.wait(order["id"], seconds)
    for execution in desk.executions(order["id"]):
        print(f"  {execution['kind']} {execution['quantity']} at {execution['price']} from {execution['broker']}")
    average = f" at {order['average_price']} on average" if order["average_price"] else ""
    print(f"  {order['status']}: {order['filled_quantity']} of {order['quantity']}{average}, fees {order['fees']}")
    position = desk.position(ticket["account"], ticket["symbol"])
    if position:
        print(
            f"{ticket['account']} holds {position['quantity']} {position['symbol']}, market value "
            f"{position['market_value']} {position['currency']}, unrealised {position['unrealized_pnl']}"
        )
    return 0 if order["status"] == "filled" else 1


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Place an order, wait for the fill, print the position.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--token", default=os.environ.get("OMS_TOKEN", ""), help="or the variable OMS_TOKEN")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--account", default="MAIN")
    parser.add_argument("--symbol", default="AAPL")
    parser.add_argument("--side", default="buy", choices=["buy", "sell", "sell_short"])
    parser.add_argument("--quantity", default="10")
    parser.add_argument("--limit-price", help="makes it a limit order")
    parser.add_argument("--client-order-id", help="the same id twice is the same order")
    parser.add_argument("--wait", type=float, default=30.0, metavar="SECONDS")
    given = parser.parse_args(arguments)
    token = given.token_file.read_text().strip() if given.token_file else given.token
    ticket = {n: getattr(given, n) for n in ("account", "symbol", "side", "quantity")} | {"order_type": "market"}
    if given.limit_price:
        ticket |= {"order_type": "limit", "limit_price": given.limit_price}
    if given.client_order_id:
        ticket["client_order_id"] = given.client_order_id
    try:
        return run(Desk(given.url, token), ticket, given.wait)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The desk can't be reached: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
