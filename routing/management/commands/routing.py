"""What routing learned, by which weights it decides, and what others would have cost."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from oms.kernel.errors import DomainError, InvalidFields
from oms.runtime.commands import actor_named, add_options, tell
from routing import operations, policies, queries

ROLES = ("risk", "ops", "admin")
HOURS = 24


class Command(BaseCommand):
    """`beliefs`, `weights`, `propose NAME=VALUE ...`, `promote VERSION`, `compare [--hours N]`."""

    help = "Show what was learned of brokers; propose, promote and roll back weights; compare with other policies."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the verb and what it needs."""
        parser.add_argument("verb", choices=["beliefs", "weights", "propose", "promote", "compare"])
        parser.add_argument("values", nargs="*", help="propose: NAME=VALUE; promote: the version")
        parser.add_argument("--reason", default="", help="why, for `propose`")
        parser.add_argument("--hours", type=int, default=HOURS, help="how far back `compare` looks")
        add_options(parser, changes=True, role="risk, ops or admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        try:
            told, lines = getattr(self, f"_{options['verb']}")(options, datetime.now(UTC))
        except InvalidFields as error:
            raise CommandError("; ".join(f"{e.field}: {e.detail}" for e in error.errors), returncode=2) from error
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error
        tell(self, options, told, "\n".join(lines))

    @staticmethod
    def _beliefs(options: Any, at: datetime) -> tuple[Any, list[str]]:
        rows = queries.scores_out(at=at)
        lines = [
            f"{r['broker']:<10} {r['symbol'] or 'all':<10} {r['size'] or 'all':<8} {r['hours'] or 'all day':<8} "
            f"{r['cost_bps']:+8.2f} ± {1.96 * r['error_bps']:.2f} bps, {r['orders']:.0f} orders"
            for r in rows
        ]
        return {"beliefs": rows}, lines or ["Nothing is learned yet."]

    @staticmethod
    def _weights(options: Any, at: datetime) -> tuple[Any, list[str]]:
        rows = queries.weights_out()
        version, numbers = queries.weights(fresh=True)
        lines = [f"in force: version {version}", *(f"  {k} {v}" for k, v in numbers.as_json().items())]
        lines += [f"{r['version']:>4} {r['status']:<9} {r['reason']}" for r in rows]
        return {"active": version, "values": numbers.as_json(), "versions": rows}, lines

    @staticmethod
    def _propose(options: Any, at: datetime) -> tuple[Any, list[str]]:
        pairs = [v.partition("=") for v in options["values"]]
        if not pairs or not all(sep for _, sep, _ in pairs) or not options["reason"]:
            raise CommandError("Say what: propose NAME=VALUE ... --reason TEXT", returncode=2)
        values = {name: value for name, _, value in pairs}
        actor = actor_named(options["user"], *ROLES)
        if options["dry_run"]:
            _, present = queries.weights(fresh=True)
            return {"values": operations.parse(values, present).as_json()}, ["It would be proposed."]
        row = operations.propose_weights(values, reason=options["reason"], actor=actor, at=at)
        return queries.weights_out_of(row), [f"Version {row.version} is proposed; another person promotes it."]

    @staticmethod
    def _promote(options: Any, at: datetime) -> tuple[Any, list[str]]:
        if len(options["values"]) != 1 or not options["values"][0].isdigit():
            raise CommandError("Say which: promote VERSION", returncode=2)
        version, actor = int(options["values"][0]), actor_named(options["user"], *ROLES)
        if options["dry_run"]:
            return {"version": version}, [f"Version {version} would be put in force."]
        row = operations.promote_weights(version, actor=actor, at=at)
        return queries.weights_out_of(row), [f"Version {version} is in force."]

    @staticmethod
    def _compare(options: Any, at: datetime) -> tuple[Any, list[str]]:
        rows = policies.compared(at - timedelta(hours=options["hours"]), at)
        lines = []
        for row in rows:
            e = row["estimate"]
            told = "nothing can be told" if e is None else (
                f"{e['mean']:+.3f} bps ({e['low']:+.3f} to {e['high']:+.3f}), {e['orders']} orders, as good as {e['effective']:.0f}"
            )  # fmt: skip
            lines.append(f"{row['policy']:<14} {told}")
        return {"policies": rows}, lines
