"""Bring a scope to zero."""

import argparse
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from brokers import queries as brokers
from oms.kernel.decimals import text
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from orders.operations.halting import open_in
from orders.operations.liquidating import SCOPES, advance, begin, liquidation_out, positions_in
from risk.domain.scopes import parse_scope_text
from risk.models import Liquidation

LOOK_SECONDS = 0.5


class Command(BaseCommand):
    """`liquidate --scope account:MAIN --reason TEXT`: exit 0 once it is flat, 1 if it is not by the end of the wait."""

    help = "Stop a scope, cancel what is open there, and bring its positions to zero."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the scope, the reason and how long to wait."""
        parser.add_argument("--scope", required=True, help="all, account:MAIN, symbol:AAPL")
        parser.add_argument("--reason", required=True)
        parser.add_argument(
            "--wait", type=float, default=60.0, help="seconds to follow it; the pricer goes on after that"
        )
        add_options(parser, changes=True, role="risk")

    def handle(self, *args: Any, **options: Any) -> None:
        """Begin and follow it, or tell what stands in the scope."""
        actor = actor_named(options["user"], "risk")
        try:
            scope = parse_scope_text(options["scope"], SCOPES)
            if options["dry_run"]:
                self._tell_what_is_there(scope, options)
                return
            liquidation = begin(scope, reason=options["reason"], actor=actor, at=timezone.now())
        except DomainError as error:
            raise CommandError(str(error), returncode=2) from error
        end = time.monotonic() + options["wait"]
        while liquidation.state == Liquidation.State.RUNNING and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            advance(liquidation.id, at=timezone.now())
            liquidation.refresh_from_db()
        lines = [f"{s['at']} {s['step']}: {s['detail']}" for s in liquidation.steps]
        told = {"liquidation": liquidation_out(liquidation), "dry_run": False}
        tell(self, options, told, "\n".join([*lines, f"{scope}: {liquidation.state} ({liquidation.id})."]))
        if liquidation.state != Liquidation.State.FLAT:
            raise SystemExit(1)

    def _tell_what_is_there(self, scope: Any, options: dict[str, Any]) -> None:
        instruments = brokers.instruments()
        open_positions = [
            {"account": p.account.code, "symbol": instruments[p.instrument_id].symbol, "quantity": text(p.quantity)}
            for p in positions_in(scope)
        ]
        told = {
            "scope": scope.as_json(),
            "positions": open_positions,
            "open_orders": len(open_in(scope)),
            "dry_run": True,
        }
        sentence = (
            f"{len(open_positions)} positions would be closed and {told['open_orders']} orders canceled in {scope}."
        )
        tell(self, options, told, sentence)
