"""Engage a halt."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from orders.operations.halting import halt, open_in
from risk import queries
from risk.domain.scopes import HALT_SCOPES, parse_scope_text
from risk.models import Halt


class Command(BaseCommand):
    """`halt --scope account:MAIN --reason TEXT`: needs PostgreSQL alone. Open orders are canceled by a full halt."""

    help = "Stop trading for an account, broker, symbol, strategy, user, or all."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the scope and the reason."""
        parser.add_argument("--scope", required=True, help="all, account:MAIN, broker:PRIME, symbol:AAPL, …")
        parser.add_argument("--reason", required=True)
        parser.add_argument("--mode", choices=Halt.Mode.values, default=Halt.Mode.HALT.value)
        parser.add_argument("--cancel-open", action=argparse.BooleanOptionalAction, default=None)
        add_options(parser, changes=True, role="risk")

    def handle(self, *args: Any, **options: Any) -> None:
        """Halt, or tell how many open orders stand in the scope."""
        actor = actor_named(options["user"], "risk")
        try:
            scope = parse_scope_text(options["scope"], HALT_SCOPES)
            if options["dry_run"]:
                told: dict[str, Any] = {"scope": scope.as_json(), "open_orders": len(open_in(scope)), "dry_run": True}
                sentence = f"{scope} would be halted; {told['open_orders']} orders are open there."
            else:
                engaged, canceled = halt(
                    scope,
                    mode=options["mode"],
                    cancel_open=options["cancel_open"],
                    reason=options["reason"],
                    actor=actor,
                    at=timezone.now(),
                )
                told = {"halt": queries.halt_out(engaged), "canceled": canceled, "dry_run": False}
                sentence = f"{scope} is halted ({engaged.id}); {canceled} orders are being canceled."
        except DomainError as error:
            raise CommandError(str(error), returncode=2) from error
        tell(self, options, told, sentence)
