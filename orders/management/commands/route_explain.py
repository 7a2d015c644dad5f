"""Say why an order went where it went."""

import argparse
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from oms.runtime.commands import add_options, tell
from orders.models import Order
from orders.queries import Names, order_out
from routing import queries as routing


class Command(BaseCommand):
    """`route_explain ORDER`: every decision made for it, broker by broker."""

    help = "Show the routing decisions of an order: each broker with its cost, or the reasons against it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the order."""
        parser.add_argument("order", help="the order's id, or its client_order_id")
        parser.add_argument("--account", default="", help="tells orders of one client_order_id apart")
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Find the order and show."""
        order = _find(options["order"], options["account"])
        told, decisions = order_out(order, Names()), routing.decisions_of(order.id)
        lines = [
            f"{told['side']} {told['quantity']} {told['symbol']} {told['order_type']} in {told['account']}: {told['status']}"
        ]
        for decision in decisions:
            lines.append(f"{decision['at']}  model {decision['model_version']}")
            lines += [_line(c) for c in sorted(decision["candidates"], key=_rank)]
        if not decisions:
            lines.append(f"No decision: {(told['reason'] or {}).get('code') or 'it was not routed by the desk'}.")
        tell(self, options, {"order": told, "decisions": decisions}, "\n".join(lines))


def _find(name: str, account: str) -> Order:
    found = Order.objects.filter(account__code=account) if account else Order.objects.all()
    try:
        matching = list(found.filter(pk=UUID(name))[:1]) or list(found.filter(client_order_id=name)[:2])
    except ValueError:
        matching = list(found.filter(client_order_id=name)[:2])
    if len(matching) != 1:
        detail = "Several accounts have an order of that id; name one with --account." if matching else "No such order."
        raise CommandError(detail, returncode=2)
    return matching[0]


def _rank(candidate: dict[str, Any]) -> tuple[bool, float, str]:
    return not candidate["eligible"], float(candidate["cost_bps"] or 0), candidate["broker"]


def _line(candidate: dict[str, Any]) -> str:
    mark = ">" if candidate["quantity"] != "0" else " "
    if not candidate["eligible"]:
        return f"{mark} {candidate['broker']:<16} no: {', '.join(candidate['reasons'])}"
    parts = ", ".join(f"{k} {v}" for k, v in candidate["parts"].items())
    taken = f"  takes {candidate['quantity']}" if candidate["quantity"] != "0" else ""
    return f"{mark} {candidate['broker']:<16} {candidate['cost_bps']} bps = {parts}{taken}"
