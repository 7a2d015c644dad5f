"""Take in a broker's file."""

import argparse
import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers import queries as brokers
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from portfolio import statements
from portfolio.breaks import statement_out
from portfolio.domain.profiles import STANDARD, template_of
from portfolio.models import StatementProfile

SHOWN = 50


class Command(BaseCommand):
    """`import_statement FILE`: exit 0 taken (or taken before), 1 bad lines told by number, 2 it can't be read at all."""

    help = "Stage a broker's statement for reconciliation; nothing is booked."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the file, whose it is and how to read it."""
        parser.add_argument("file", type=Path, nargs="?")
        parser.add_argument("--broker", default="", help="a code; without it what the file's name begins with")
        parser.add_argument("--profile", default=STANDARD, help="how to read it: a template or a profile of the admin")
        parser.add_argument(
            "--date", type=date.fromisoformat, help="the day whose end it speaks of; else its name's, or now"
        )
        parser.add_argument("--partial", action="store_true", help="take the good lines of a file with bad ones")
        parser.add_argument(
            "--template", action="store_true", help="write the header line of the profile's files, and end"
        )
        add_options(parser, changes=True, role="ops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Read, stage, and tell."""
        actor, at = actor_named(options["user"], "ops"), datetime.now(UTC)
        try:
            if options["template"]:
                self.stdout.write(template_of(statements.profile_named(options["profile"])))
                return
            file = options["file"]
            if file is None:
                raise CommandError("Name the file.", returncode=2)
            code = options["broker"] or _broker_in(file.name, options["profile"])
            request = {
                "broker": code,
                "name": file.name,
                "profile": options["profile"],
                "as_of": _end_of(options["date"] or _date_in(file.name), at),
                "partial": options["partial"],
            }
            if options["dry_run"]:
                lines, faults, count = statements.look_into(file.read_bytes(), broker=code, profile=options["profile"])
                self._tell_faults(options, [f._asdict() for f in faults], count, taken=lines)
                if count:
                    raise SystemExit(1)
                return
            taken = statements.import_file(file.read_bytes(), **request, actor=actor, at=at)
        except statements.BadFile as bad:
            faults = [{"line": e.field, "code": e.code, "detail": e.detail} for e in bad.errors]
            self._tell_faults(options, faults, bad.count, taken={})
            raise SystemExit(1) from None
        except (DomainError, OSError) as error:
            raise CommandError(getattr(error, "detail", str(error)), returncode=2) from error
        statement = statement_out(taken.statement)
        lines = ", ".join(f"{n} {section}" for section, n in taken.statement.lines.items())
        sentence = (
            f"{'Taken before' if taken.repeated else 'Taken'}: {lines}; {taken.statement.rejected} lines left out."
        )
        faults = [f"line {f['line']}: {f['code']}: {f['detail']}" for f in taken.statement.faults[:SHOWN]]
        told = {"statement": statement, "repeated": taken.repeated, "dry_run": False}
        tell(self, options, told, "\n".join([sentence, *faults]))

    def _tell_faults(
        self, options: dict[str, Any], faults: list[dict[str, Any]], count: int, taken: dict[str, int]
    ) -> None:
        told = {"statement": None, "lines": taken, "bad_lines": count, "faults": faults, "dry_run": options["dry_run"]}
        named = [
            f"{f['line'] if isinstance(f['line'], str) else 'line ' + str(f['line'])}: {f['code']}: {f['detail']}"
            for f in faults
        ]
        summary = f"{count} lines can't be read; nothing was taken." if count else f"Could be taken: {taken}."
        tell(self, options, told, "\n".join([*named[:SHOWN], summary]))


def _broker_in(name: str, profile: str) -> str:
    """Return the broker that a file's name begins with, or whose files alone the profile reads."""
    row = StatementProfile.objects.select_related("broker").filter(code=profile).first()
    if row is not None and row.broker is not None:
        return row.broker.code
    known = sorted(brokers.brokers_by_code(), key=len, reverse=True)
    found = next((c for c in known if re.match(rf"{re.escape(c)}(?![A-Za-z0-9])", name, re.IGNORECASE)), None)
    if found is None:
        raise CommandError("Name the broker with --broker, or let the file's name begin with its code.", returncode=2)
    return found


def _date_in(name: str) -> date | None:
    found = re.search(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)", name)
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def _end_of(day: date | None, at: datetime) -> datetime | None:
    """Return the end of a day (UTC), or now for one that is not over."""
    if day is None:
        return None
    return min(at, datetime.combine(day, time.min, UTC) + timedelta(days=1) - timedelta(microseconds=1))
