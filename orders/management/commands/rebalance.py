"""Propose what rules of accounts call for today, and take proposals on their way."""

import argparse
import time
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from orders.operations import rebalancing
from portfolio.models import Rebalance
from portfolio.proposing import ENDED, Status
from portfolio.rebalances import rebalance_out, rules_to_look_at

LOOK_SECONDS = 0.5
STEPS = ("approve", "execute", "cancel")


class Command(BaseCommand):
    """`rebalance`: propose for all accounts that are due. `rebalance ID --step execute`: exit 1 if it does not end as asked."""

    help = "Propose rebalances that are due by the rules of accounts, or approve, execute or cancel one."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take which account or which rebalance, and what to do with it."""
        parser.add_argument("id", nargs="?", type=UUID, help="of a rebalance")
        parser.add_argument("--step", choices=STEPS, help="what to do with it; without it, show it")
        parser.add_argument("--account", default="", help="only this account's rule")
        parser.add_argument(
            "--wait", type=float, default=60.0, help="seconds to follow it; the pricer goes on after that"
        )
        add_options(parser, changes=True, role="trader")

    def handle(self, *args: Any, **options: Any) -> None:
        """Propose, or take one step."""
        actor = actor_named(options["user"], "trader")
        try:
            if options["id"] is None:
                self._propose(actor, options)
            else:
                self._step(options["id"], actor, options)
        except DomainError as error:
            raise CommandError(str(error), returncode=2) from error

    def _propose(self, actor: Any, options: dict[str, Any]) -> None:
        at = timezone.now()
        if options["step"]:
            raise CommandError("A step needs the id of a rebalance.", returncode=2)
        rules = [r for r in rules_to_look_at(at.date()) if options["account"] in ("", r.account.code)]
        if options["dry_run"]:
            told = {"due": [r.account.code for r in rules], "dry_run": True}
            tell(self, options, told, f"{len(rules)} rules would be looked at: {', '.join(told['due']) or 'none'}.")
            return
        made, failed = [], []
        for rule in rules:
            try:
                found = rebalancing.propose_by_rule(rule, actor=actor, at=at)
            except DomainError as error:
                failed.append({"account": rule.account.code, "code": error.code, "detail": error.detail})
                continue
            if found is not None:
                made.append({"account": rule.account.code, "rebalance": str(found.pk), "lines": found.lines.count()})
        lines = [f"{m['account']}: {m['rebalance']}, {m['lines']} lines" for m in made]
        lines += [f"{f['account']}: {f['detail']}" for f in failed]
        told = {"proposed": made, "failed": failed, "dry_run": False}
        tell(self, options, told, "\n".join([*lines, f"{len(made)} proposed, {len(failed)} failed."]))
        if failed:
            raise SystemExit(1)

    def _step(self, pk: UUID, actor: Any, options: dict[str, Any]) -> None:
        found = Rebalance.objects.filter(pk=pk).first()
        if found is None:
            raise CommandError("There is no such rebalance.", returncode=2)
        step, at = options["step"], timezone.now()
        if step and not options["dry_run"]:
            acts = {
                "approve": lambda: rebalancing.approve(pk, actor=actor, at=at),
                "execute": lambda: rebalancing.execute(pk, actor=actor, at=at),
                "cancel": lambda: rebalancing.cancel(pk, reason="by command", actor=actor, at=at),
            }
            acts[step]()
            self._follow(pk, options["wait"])
        found.refresh_from_db()
        told = {"rebalance": rebalance_out(found), "dry_run": options["dry_run"]}
        lines = [
            f"{x['account']} {x['side'] or '-'} {x['quantity']} {x['symbol']}: {x['outcome'] or x['skipped'] or 'proposed'}"
            for x in told["rebalance"]["lines"]
        ]
        tell(self, options, told, "\n".join([*lines, f"{found.status} ({pk})."]))
        wanted = {"execute": {Status.DONE}, "cancel": {Status.CANCELED}}.get(step or "", {found.status})
        if not options["dry_run"] and found.status not in wanted:
            raise SystemExit(1)

    @staticmethod
    def _follow(pk: UUID, wait: float) -> None:
        """Take its next steps as the pricer does, until it has ended or the time is over."""
        end = time.monotonic() + wait
        while time.monotonic() < end:
            rebalancing.advance(pk, at=timezone.now())
            status = Rebalance.objects.values_list("status", flat=True).get(pk=pk)
            if status in ENDED or status not in (Status.EXECUTING, Status.CANCELING):
                return
            time.sleep(LOOK_SECONDS)
