"""Keep what accounts are worth as the value of the day."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from oms.kernel.decimals import text_or_none
from oms.runtime.commands import actor_named, add_options, tell
from portfolio.models import Account, DailyValue
from portfolio.valuing import snapshot, values_now


class Command(BaseCommand):
    """`snapshot`: exit 0 where every account is worth something known, 1 where a price or a rate is missing."""

    help = "Keep what accounts are worth as the value of the UTC day; the last one of a day stands."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the common options."""
        add_options(parser, changes=True)

    def handle(self, *args: Any, **options: Any) -> None:
        """Keep them, or tell what they would be."""
        actor_named(options["user"])
        at = timezone.now()
        if not options["dry_run"]:
            snapshot(at=at)
        ids = list(Account.objects.filter(status=Account.Status.OPEN).values_list("id", flat=True))
        values = values_now(ids, at=at).values()
        rows = [
            {
                "account": v.account.code, "currency": v.account.base_currency, "equity": text_or_none(v.equity),
                "unpriced": v.worth.unpriced, "unrated": list(v.unrated),
            }
            for v in values
        ]  # fmt: skip
        told = {
            "day": at.date().isoformat(),
            "accounts": rows,
            "kept": DailyValue.objects.filter(day=at.date()).count(),
            "dry_run": options["dry_run"],
        }
        lines = [f"{r['account']}: {r['equity'] or 'not known'} {r['currency']}" for r in rows]
        tell(self, options, told, "\n".join(lines))
        if any(r["equity"] is None for r in rows):
            raise SystemExit(1)
