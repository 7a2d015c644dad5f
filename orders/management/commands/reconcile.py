"""Reconcile with brokers, and tell what differs."""

import argparse
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers import queries as brokers
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from orders.operations.reconciling import reconcile
from portfolio import breaks
from portfolio.domain.breaks import CAUSES
from portfolio.models import Break, Reconciliation

OVER = (Break.State.RESOLVED, Break.State.CLOSED)


class Command(BaseCommand):
    """`reconcile --broker PRIME`: exit 0 if nothing differs, 1 if something does or a run failed, 2 if it cannot run."""

    help = "Compare positions, cash, fills and open orders with what brokers say, now or by the files of a day."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the broker, the day, and where a report goes."""
        parser.add_argument("--broker", default="", help="a code; every broker that is switched on without it")
        parser.add_argument("--date", type=date.fromisoformat, help="a day whose imported files are read")
        parser.add_argument("--override", default="", help="why an answer is believed that shrank; needs --as")
        parser.add_argument("--html", type=Path, help="write the report as a page, too")
        add_options(parser, changes=True, role="ops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, tell, and judge."""
        actor = actor_named(options["user"], "ops")
        codes = (
            [options["broker"]]
            if options["broker"]
            else sorted(b.code for b in brokers.brokers().values() if b.enabled)
        )
        if options["dry_run"]:
            tell(self, options, {"brokers": codes, "dry_run": True}, f"Would reconcile with {', '.join(codes)}.")
            return
        told = []
        for code in codes:
            try:
                run = reconcile(
                    code, on=options["date"], override=options["override"], actor=actor, clock=lambda: datetime.now(UTC)
                )
            except DomainError as error:
                if error.code == "statements_only" and not options["broker"]:
                    continue  # its files are another day's
                raise CommandError(error.detail, returncode=2) from error
            told.append(_told(run))
        if options["html"]:
            options["html"].write_text(_page(told), encoding="utf-8")
        tell(self, options, {"runs": told, "dry_run": False}, "\n".join(line for run in told for line in _lines(run)))
        if any(run["status"] == "failed" or run["open"] for run in told):
            raise SystemExit(1)


def _told(run: Reconciliation) -> dict[str, Any]:
    rows = [breaks.break_out(b, at=run.ended_at) for b in breaks.breaks_of(run)]
    still = sum(1 for b in rows if b["status"] not in OVER)
    return {**breaks.reconciliation_out(run), "breaks": rows, "open": still}


def _lines(run: dict[str, Any]) -> list[str]:
    """Return a run as lines of text."""
    if run["failure"]:
        return [f"{run['broker']}: failed, {run['failure']['code']}: {run['failure']['detail']}"]
    sides = ", ".join(f"{name} {s['theirs']} of theirs and {s['ours']} of ours" for name, s in run["sections"].items())
    sums = ", ".join(
        f"{run[n]} {n.replace('_', ' ')}" for n in ("opened", "standing", "closed", "adopted", "in_flight")
    )
    return [
        f"{run['broker']} as of {run['as_of']}: {sides}; {sums} ({run['seconds']:.1f} s).",
        *(f"  {_sentence(b)}" for b in run["breaks"]),
    ]


def _sentence(row: dict[str, Any]) -> str:
    proposal = row["proposal"]["action"] if row["proposal"] else "none"
    return (
        f"{row['status']:9} {row['kind']:14} {row['account'] or '-'} {row['subject']}: ours {row['ours'] or 'none'}, "
        f"theirs {row['theirs'] or 'none'}; {CAUSES.get(row['cause'], row['cause'])} Proposed: {proposal}. "
        f"Run {row['runs']}, {row['age_seconds']} s old. {row['id']}"
    )


_STYLE = (
    "body{font:14px system-ui;margin:2rem;color:#1c2430}table{border-collapse:collapse;margin:.5rem 0 1.5rem}"
    "td,th{padding:.25rem .6rem;border-bottom:1px solid #d7dde5;text-align:left}.n{text-align:right}.bad{color:#a3202e}"
)
_COLUMNS = ("status", "kind", "account", "subject", "ours", "theirs", "cause", "runs", "age_seconds", "owner")


def _page(runs: list[dict[str, Any]]) -> str:
    """Return the report as a page that needs nothing else."""
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Reconciliation</title><style>{_STYLE}</style>"]
    for run in runs:
        parts.append(f"<h1>{escape(run['broker'])}</h1><p>As of {escape(run['as_of'])}, {escape(run['source'])}.</p>")
        if run["failure"]:
            parts.append(f"<p class=bad>{escape(run['failure']['code'])}: {escape(run['failure']['detail'])}</p>")
            continue
        parts.append(
            f"<p>{run['opened']} opened, {run['standing']} standing, {run['closed']} closed, {run['adopted']} adopted.</p>"
        )
        head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in _COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(str(b[c] if b[c] is not None else ''))}</td>" for c in _COLUMNS) + "</tr>"
            for b in run["breaks"]
        )
        parts.append(f"<table><tr>{head}</tr>{rows}</table>" if rows else "<p>Nothing differs.</p>")
    return "".join(parts)
