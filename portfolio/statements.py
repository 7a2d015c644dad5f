"""Taking in what brokers say: staged line by line, compared later. Nothing is booked from here.

A file is taken whole, or not at all with every bad line told by its number; `partial` takes exactly the good ones.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from hashlib import sha256
from typing import IO, Any
from uuid import UUID

from django.db import connection

from brokers import queries as reference
from brokers.domain.reference import BrokerRef
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, InvalidFields, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from portfolio.domain.profiles import FILL, STANDARD, TEMPLATES, Profile, judge_profile
from portfolio.domain.statements import Fault, Known, Line, read
from portfolio.models import Account, BrokerLink, Statement, StatementProfile

FAULTS_TOLD = 1_000
"""Bad lines that are told one by one; the rest is counted."""
SPOOL_BYTES = 32 * 1024 * 1024
"""What of a file is held in memory before its lines go to disk on their way."""
ANALYZED_FROM = 10_000
"""Lines of a statement from which on the database counts its rows again: without that it would compare them one by one."""
_STAGED = Line._fields[: Line._fields.index("settles")]
"""What is kept of a line: a statement's fills are not compared by their day of settlement."""
_COPY = "COPY portfolio_statementline (statement_id, {}) FROM STDIN".format(", ".join(_STAGED))


class BadFile(InvalidFields):
    """Lines of a file can't be read; nothing of it was taken."""

    def __init__(self, faults: list[Fault], count: int) -> None:
        super().__init__([Invalid(f.code, f.detail, field=f"line {f.line}") for f in faults])
        self.code = "bad_lines"
        self.detail = f"{count} lines can't be read; nothing was taken. Correct them, or take the good ones alone."
        self.count = count


@dataclass(frozen=True, slots=True)
class Taken:
    """A statement as taken in; `repeated` when the same file was taken before."""

    statement: Statement
    repeated: bool = False


def _open_spool() -> IO[str]:
    return tempfile.SpooledTemporaryFile(SPOOL_BYTES, "w+", encoding="utf-8", newline="")


@dataclass(slots=True)
class _Spool:
    """Lines on their way to the database, as COPY reads them, with what is to be known of them together."""

    statement_id: UUID
    out: IO[str] = field(default_factory=_open_spool)
    counts: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""

    def take(self, line: Line) -> None:
        """Write one line."""
        self.counts[line.section] += 1
        if line.section == FILL and line.at:
            self.first = min(self.first or line.at, line.at)
            self.last = max(self.last, line.at)
        cells = [r"\N" if v is None else str(v) for v in line[: len(_STAGED)]]
        text = "\t".join(cells)
        if "\\" in text:
            text = "\t".join(c if c == r"\N" else c.replace("\\", "\\\\") for c in cells)
        self.out.write(f"{self.statement_id}\t{text}\n")

    def close(self) -> None:
        """Drop what was written."""
        self.out.close()

    def copy(self) -> None:
        """Send all of it, inside the caller's transaction."""
        self.out.seek(0)
        connection.ensure_connection()
        with connection.wrap_database_errors, connection.connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            while chunk := self.out.read(1 << 20):
                copy.write(chunk)


def import_file(
    content: bytes,
    *,
    broker: str,
    name: str,
    profile: str = STANDARD,
    as_of: datetime | None = None,
    since: datetime | None = None,
    partial: bool = False,
    actor: Actor,
    at: datetime,
) -> Taken:
    """Stage a broker's file. The same bytes are taken once: a repeat returns the first statement.

    `as_of` is the time that the file speaks of (without it: its last fill, else now), `since` when the fills that it
    tells begin (without it: the beginning of the day of its first one). Raises `Invalid` for an unknown broker or
    profile or a file that is no table, `BadFile` for bad lines unless the good ones are taken alone.
    """
    there = require_broker(broker)
    reading = profile_named(profile, there)
    digest = sha256(content).digest()
    if known := _taken_before(there.id, digest):
        return Taken(known, repeated=True)
    with closing(_Spool(uuid7())) as spool:
        faults, count = _read(content, reading, there.id, spool)
        if faults and not (partial and spool.counts):
            raise BadFile(faults, count)
        if not spool.counts:
            raise Invalid(
                "empty_file", "The file holds no line below its headers; silence is no statement.", field="file"
            )
        kept = _statement(spool, there.id, Statement.Source.FILE, name, as_of=as_of, since=since, actor=actor, at=at)
        kept.profile, kept.digest, kept.rejected = profile, digest, count
        kept.faults = [f._asdict() for f in faults]
        if kept.as_of > at + timedelta(days=1):
            raise Invalid("in_the_future", "The file speaks of a time that lies ahead.", field="as_of")
        return _store(kept, spool, actor=actor, at=at)


def look_into(content: bytes, *, broker: str, profile: str) -> tuple[dict[str, int], list[Fault], int]:
    """Return what a file would give: lines by section, the first bad lines, and how many there are. Nothing is kept."""
    there = require_broker(broker)
    with closing(_Spool(uuid7())) as spool:
        faults, count = _read(content, profile_named(profile, there), there.id, spool)
        return dict(spool.counts), faults, count


def _read(content: bytes, profile: Profile, broker_id: int, spool: _Spool) -> tuple[list[Fault], int]:
    """Spool the good lines; return the first of the bad ones, and how many there are."""
    faults, count = [], 0
    for found in read(content, profile, known_at(broker_id)):
        if isinstance(found, Line):
            spool.take(found)
            continue
        count += 1
        if len(faults) < FAULTS_TOLD:
            faults.append(found)
    return faults, count


def stage(
    broker_id: int, lines: Iterable[Line], *, name: str, since: datetime, as_of: datetime, actor: Actor, at: datetime
) -> Statement:
    """Keep what a broker answered to questions as a statement of its own."""
    with closing(_Spool(uuid7())) as spool:
        for line in lines:
            spool.take(line)
        source = Statement.Source.ADAPTER
        kept = _statement(spool, broker_id, source, name, as_of=as_of, since=since, actor=actor, at=at)
        kept.digest = bytes(32)
        return _store(kept, spool, actor=actor, at=at).statement


def _statement(
    spool: _Spool,
    broker_id: int,
    source: str,
    name: str,
    *,
    as_of: datetime | None,
    since: datetime | None,
    actor: Actor,
    at: datetime,
) -> Statement:
    end = as_of or (datetime.fromisoformat(spool.last) if spool.last else at)
    begun = since or datetime.combine(end.astimezone(UTC).date(), time.min, UTC)
    if spool.first and since is None:
        begun = min(begun, datetime.combine(datetime.fromisoformat(spool.first).date(), time.min, UTC))
    if begun > end:
        raise Invalid("out_of_range", "The fills begin after the time that the file speaks of.", field="since")
    return Statement(
        id=spool.statement_id,
        broker_id=broker_id,
        source=source,
        name=name[:200],
        since=begun,
        as_of=end,
        lines=dict(spool.counts),
        created_by=actor.name,
        created_at=at,
    )


def _store(statement: Statement, spool: _Spool, *, actor: Actor, at: datetime) -> Taken:
    @in_transaction
    def store() -> Taken:
        if statement.source == Statement.Source.FILE:
            sql.run("SELECT 1 FROM brokers_broker WHERE id = %s FOR NO KEY UPDATE", [statement.broker_id])
            if known := _taken_before(statement.broker_id, bytes(statement.digest)):
                return Taken(known, repeated=True)
        sql.insert([statement])
        with sql.with_patience():
            spool.copy()
        if spool.counts.total() >= ANALYZED_FROM:
            sql.run("ANALYZE portfolio_statementline")
        data = {
            "statement": str(statement.id),
            "broker": reference.brokers()[statement.broker_id].code,
            "source": statement.source,
            "name": statement.name,
            "as_of": json.rfc3339(statement.as_of),
            "lines": statement.lines,
            "rejected": statement.rejected,
        }
        _tell("statement.staged", str(statement.id), data, actor=actor, at=at)
        return Taken(statement)

    return store()


def _taken_before(broker_id: int, digest: bytes) -> Statement | None:
    return Statement.objects.filter(
        broker_id=broker_id, digest=digest, source=Statement.Source.FILE, state=Statement.State.STAGED
    ).first()


@in_transaction
def reverse(statement_id: UUID, *, reason: str, actor: Actor, at: datetime) -> Statement:
    """Withdraw a file: no reconciliation reads it any more, and breaks that only it shows are closed.

    What was corrected on account of it stays: each correction has a reversal of its own. Raises `NotFound`, `Conflict`.
    """
    statement = Statement.objects.select_for_update().filter(pk=statement_id, source=Statement.Source.FILE).first()
    if statement is None:
        raise NotFound("not_found", "There is no such statement.")
    if statement.state == Statement.State.REVERSED:
        raise Conflict("already_reversed", "This statement was withdrawn before.")
    statement.state, statement.reason = Statement.State.REVERSED, reason[:150]
    statement.save(update_fields=["state", "reason"])
    closed = sql.run(
        "UPDATE portfolio_break b SET state = 'closed', closed_at = %(at)s, closed_as = 'withdrawn' "
        "FROM portfolio_reconciliation r WHERE r.id = b.seen_by_id AND b.state IN ('open', 'resolved') "
        "AND r.sections @> jsonb_build_object(CASE WHEN b.kind IN ('position', 'cash') THEN b.kind "
        "WHEN b.kind LIKE '%%fill' THEN 'fill' ELSE 'order' END, jsonb_build_object('statement', %(id)s::text))",
        {"at": at, "id": str(statement_id)},
    ).rowcount
    data = {"statement": str(statement.id), "reason": statement.reason, "breaks_closed": closed}
    _tell("statement.reversed", str(statement.id), data, actor=actor, at=at)
    return statement


def _tell(kind: str, about: str, data: dict[str, Any], *, actor: Actor, at: datetime) -> None:
    journal.append([Entry(SYSTEM_STREAM, kind, about, json.dumps({"data": data}))], actor=actor, at=at)


# ---------------------------------------------------------------- what words stand for


def require_broker(code: str) -> BrokerRef:
    """Return a broker, or raise `Invalid`."""
    found = reference.brokers_by_code().get(code)
    if found is None:
        raise Invalid("unknown_broker", "No such broker.", field="broker")
    return found


def profile_named(code: str, broker: BrokerRef | None = None) -> Profile:
    """Return a profile: a row of that code, else a template. Raises `Invalid` for an unknown one, or another broker's."""
    row = StatementProfile.objects.filter(code=code).first()
    if row is not None:
        if broker is not None and row.broker_id not in (None, broker.id):
            raise Invalid("wrong_broker", f"The profile {code} is for files of another broker.", field="profile")
        return judge_profile(row.settings)
    if code not in TEMPLATES:
        known = ", ".join([*TEMPLATES, *StatementProfile.objects.order_by("code").values_list("code", flat=True)])
        raise Invalid("unknown_profile", f"There is no profile {code!r}; use one of: {known}.", field="profile")
    return judge_profile(TEMPLATES[code])


def known_at(broker_id: int) -> Known:
    """Return what a broker's words stand for: our codes and symbols too, where its own name nothing else."""
    links = BrokerLink.objects.filter(broker_id=broker_id).select_related("broker_account", "account")
    accounts = {link.account.code: link.account_id for link in links}
    accounts |= {link.broker_account.external_id: link.account_id for link in links}
    instruments = reference.instruments()
    symbols = {i.symbol: (i.id, i.currency) for i in instruments.values()}
    for (broker, instrument_id), listing in reference.listings().items():
        if broker == broker_id:
            symbols[listing.symbol] = (instrument_id, instruments[instrument_id].currency)
    currencies = {c for i in instruments.values() for c in (i.currency, i.base_currency) if c}
    currencies |= set(Account.objects.values_list("base_currency", flat=True))
    return Known(accounts, symbols, frozenset(currencies))


__all__ = [
    "BadFile",
    "Taken",
    "import_file",
    "known_at",
    "look_into",
    "profile_named",
    "require_broker",
    "reverse",
    "stage",
]
