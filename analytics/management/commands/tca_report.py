"""Tell what executions cost in a period."""

import argparse
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from analytics import operations, queries
from analytics.report import page
from brokers import queries as brokers
from oms.kernel.decimals import text
from oms.kernel.json import rfc3339
from oms.runtime.commands import add_options, tell
from portfolio.models import Account

DAYS = 30
GROUPED = ("broker", "symbol", "size", "hour")


class Command(BaseCommand):
    """Measures what is not measured yet first; with `--rebuild` everything again."""

    help = "Compare brokers by cost, speed and fills over a period, as text, JSON or one HTML page with charts."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the period, the accounts and the page."""
        parser.add_argument(
            "--from", dest="since", type=date.fromisoformat, help=f"the first day; {DAYS} before the last without it"
        )
        parser.add_argument("--to", dest="until", type=date.fromisoformat, help="the last day; today (UTC) without it")
        parser.add_argument(
            "--account", action="append", default=[], help="its code, as often as wanted; all without it"
        )
        parser.add_argument("--html", type=Path, help="where to write the page")
        parser.add_argument("--rebuild", action="store_true", help="measure everything again first")
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Measure, read, write."""
        at = datetime.now(UTC)
        until = options["until"] or at.date()
        since = options["since"] or until - timedelta(days=DAYS)
        if since > until:
            raise CommandError("The first day is after the last.", returncode=2)
        accounts = _accounts(options["account"])
        operations.rebuild(at=at) if options["rebuild"] else operations.measure(at=at)
        operations.mark(at=at)
        ids = list(accounts)
        cards = queries.scorecards(ids, since=since, until=until)
        groups = {k: queries.tca(ids, since=since, until=until, group_by=[k]) for k in GROUPED}
        undone = _undone(ids, since, until)
        told = {"from": since.isoformat(), "to": until.isoformat(), "brokers": cards, **groups, "undone": undone}
        if options["html"]:
            html = page(
                since=since, until=until, accounts=list(accounts.values()), cards=cards, groups=groups, undone=undone,
                made_at=rfc3339(at), measured_until=queries.measured_until(),
            )  # fmt: skip
            try:
                options["html"].write_text(html, encoding="utf-8")
            except OSError as error:
                raise CommandError(f"{options['html']} can't be written: {error.strerror}.", returncode=2) from error
        tell(self, options, told, "\n".join(_lines(cards, options["html"])))


def _accounts(codes: list[str]) -> dict[int, str]:
    found = dict(
        Account.objects.filter(code__in=codes).values_list("id", "code")
        if codes
        else Account.objects.values_list("id", "code")
    )
    if missing := set(codes) - set(found.values()):
        raise CommandError(f"There is no account {', '.join(sorted(missing))}.", returncode=2)
    return found


def _undone(ids: list[int], since: date, until: date) -> list[dict[str, Any]]:
    start = datetime(since.year, since.month, since.day, tzinfo=UTC)
    end = datetime(until.year, until.month, until.day, tzinfo=UTC) + timedelta(days=1)
    instruments = brokers.instruments()
    return [
        {
            "symbol": instruments[r["instrument_id"]].symbol,
            "currency": instruments[r["instrument_id"]].currency,
            "orders": r["orders"],
            "undone": r["undone"],
            "opportunity": None if r["opportunity"] is None else text(r["opportunity"]),
        }
        for r in queries.undone(ids, since=start, until=end)
    ]


def _lines(cards: list[dict[str, Any]], html: Path | None) -> list[str]:
    lines = [f"{'broker':<16} {'rank':>4} {'fills':>8} {'arrival bps':>12} {'fees bps':>9} {'ack p95 ms':>10}"]
    for c in cards:
        ack = c["ack_ms"]["p95"]
        lines.append(
            f"{c['broker']:<16} {c['rank'] or '-':>4} {c['fills']:>8} {c['arrival_bps'] or '-':>12} {c['fees_bps'] or '-':>9} "
            f"{'-' if ack is None else round(ack):>10}"
        )
    if not cards:
        lines = ["Nothing was sent in this period."]
    return [*lines, f"Written to {html}."] if html else lines
