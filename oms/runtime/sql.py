"""Set-based SQL for the hot paths: many rows, one statement, server-side binding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models
from psycopg.rows import dict_row, tuple_row

from oms.kernel import json
from oms.runtime import arrays

_recorder: ContextVar[list[str] | None] = ContextVar("statements", default=None)
_checks: ContextVar[list[Callable[[], None]] | None] = ContextVar("checks", default=None)


class StaleVersion(Exception):
    """A row changed between the read and the write of one operation."""


def run(
    statement: str, parameters: Sequence[Any] | Mapping[str, Any] = (), *, binary: bool = False
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Execute one statement on Django's connection with server-side binding; return the cursor, rows as tuples.

    With `binary` the rows travel in binary, which is read faster; JSON then comes as values, not as text.
    """
    return _run(statement, parameters, tuple_row, binary=binary)


def rows(statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
    """Execute a query and return its rows as dictionaries."""
    return _run(statement, parameters, dict_row).fetchall()


def _run(statement: str, parameters: Any, factory: Any, *, binary: bool = False) -> psycopg.Cursor[Any]:
    connection.ensure_connection()
    statements = _recorder.get()
    if statements is not None:
        statements.append(statement)
    with connection.wrap_database_errors:
        cursor = psycopg.Cursor(connection.connection, row_factory=factory)
        return cursor.execute(statement, parameters or None, binary=binary)


LONG_SECONDS = 600
"""How long a statement over a whole file or a whole book may take, where others have a minute."""


@contextmanager
def with_patience() -> Iterator[None]:
    """Give what is run inside the time that a large file takes. Inside a transaction."""
    run("SELECT set_config('statement_timeout', %s, true)", [f"{LONG_SECONDS}s"])
    yield
    run("RESET statement_timeout")


@contextmanager
def set_against_set(memory: str) -> Iterator[None]:
    """Let what is run inside compare whole sets: by hashing and sorting in so much memory, never row by row, whatever the database
    believes of rows that have just been written; with the time that takes. Inside a transaction."""
    run("SELECT set_config('work_mem', %s, true), set_config('enable_nestloop', 'off', true)", [memory])
    with with_patience():
        yield
    run("RESET work_mem")
    run("RESET enable_nestloop")


@contextmanager
def pipeline() -> Iterator[None]:
    """Send statements without waiting for each: while PostgreSQL writes one, the next is being put together.

    Reading a result waits for what stands before it. What a statement refuses is raised by a later one, or at the end; so
    nothing inside may catch a database error, and the framework's own writes, which look at once at what they did,
    are refused.
    """
    connection.ensure_connection()
    checks: list[Callable[[], None]] = []
    token = _checks.set(checks)
    try:
        with (
            connection.wrap_database_errors,
            connection.execute_wrapper(_refuse_writes),
            connection.connection.pipeline(),
        ):
            yield
    finally:
        _checks.reset(token)
    for check in checks:
        check()


def _refuse_writes(execute: Any, statement: str, parameters: Any, many: bool, context: Any) -> Any:
    if not statement.lstrip().upper().startswith("SELECT"):
        raise RuntimeError("write through oms.runtime.sql inside a pipeline")
    return execute(statement, parameters, many, context)


def _check(check: Callable[[], None]) -> None:
    """Run a check of a statement's result: now, or at the end of the pipeline, when the result is there."""
    checks = _checks.get()
    if checks is None:
        check()
    else:
        checks.append(check)


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Collect the statements run through this module, for tests that pin their number."""
    statements: list[str] = []
    token = _recorder.set(statements)
    try:
        yield statements
    finally:
        _recorder.reset(token)


def insert(objects: Sequence[models.Model], *, on_conflict: str = "") -> None:
    """Insert model instances of one class with one statement; a JSON column may hold its text.

    `on_conflict` is the clause after the rows, for example `ON CONFLICT DO NOTHING`.
    """
    if not objects:
        return
    columns = _columns(type(objects[0]))
    statement = _insert_statement(type(objects[0]), columns, on_conflict)
    rows = [o.__dict__ for o in objects]
    run(statement, [c.pack([r[c.attname] for r in rows]) for c in columns])


def insert_values(
    model: type[models.Model], names: Sequence[str], values: Sequence[Sequence[Any]], *, on_conflict: str = ""
) -> None:
    """Insert rows given as values in the order of the columns named, with one statement.

    For facts written by the thousand: an instance costs more than its row. Columns left out get NULL or the database's
    default; JSON comes as text.
    """
    if not values:
        return
    by_column = {c.name: c for c in _columns(model)}
    columns = [by_column[n] for n in names]
    statement = _insert_statement(model, columns, on_conflict)
    run(statement, [c.pack(v) for c, v in zip(columns, zip(*values, strict=True), strict=True)])


def _insert_statement(model: type[models.Model], columns: Sequence[_Column], on_conflict: str) -> str:
    names = ", ".join(f'"{c.name}"' for c in columns)
    arrays = ", ".join(c.placeholder for c in columns)
    return f'INSERT INTO "{model._meta.db_table}" ({names}) SELECT * FROM unnest({arrays}) {on_conflict}'


def update(objects: Sequence[models.Model], names: Iterable[str]) -> None:
    """Write the named fields of instances of one class with one statement, matched by primary key.

    A model with a `version` is raised by one in the row and in the instance, and must still have the
    version read: otherwise `StaleVersion`.
    """
    if not objects:
        return
    meta = type(objects[0])._meta
    fields = [_column(meta.get_field(n)) for n in names]
    versioned = any(f.name == "version" for f in meta.concrete_fields)
    keys = [_column(meta.pk)] + ([_column(meta.get_field("version"))] if versioned else [])
    aliases = ", ".join([*(f"k{i}" for i in range(len(keys))), *(f"v{i}" for i in range(len(fields)))])
    arrays = ", ".join(c.placeholder for c in [*keys, *fields])
    sets = [f'"{c.name}" = u.v{i}' for i, c in enumerate(fields)]
    match = f't."{keys[0].name}" = u.k0'
    if versioned:
        sets.append('"version" = u.k1 + 1')
        match += ' AND t."version" = u.k1'
    statement = f'UPDATE "{meta.db_table}" t SET {", ".join(sets)} FROM unnest({arrays}) u({aliases}) WHERE {match}'
    rows = [o.__dict__ for o in objects]
    cursor = run(statement, [c.pack([r[c.attname] for r in rows]) for c in [*keys, *fields]])

    def all_written() -> None:
        if cursor.rowcount != len(objects):
            missed = len(objects) - cursor.rowcount
            raise StaleVersion(f"{meta.db_table}: {missed} of {len(objects)} rows changed meanwhile")

    _check(all_written)
    if versioned:
        for row in objects:
            row.version += 1


def uuids(values: Iterable[UUID]) -> arrays.Packed:
    """Return ids as one parameter for `= ANY(%s)`."""
    return arrays.pack("uuid", list(values))


@dataclass(frozen=True, slots=True)
class _Column:
    """How the values of one field travel."""

    attname: str
    name: str
    kind: str  # as `arrays.pack` knows it, or empty: then the driver spells the list
    placeholder: str
    is_json: bool

    def pack(self, values: Sequence[Any]) -> Any:
        if self.is_json:
            values = [v if v is None or isinstance(v, str) else _json(v) for v in values]
        return arrays.pack(self.kind, values) if self.kind else list(values)


_KINDS = {"timestamp with time zone": "timestamptz", "varchar": "text", "bool": "boolean"}
_column_cache: dict[type[models.Model], list[_Column]] = {}
_field_cache: dict[models.Field[Any, Any], _Column] = {}


def _columns(model: type[models.Model]) -> list[_Column]:
    if model not in _column_cache:
        kept = [f for f in model._meta.concrete_fields if not isinstance(f, models.AutoField | models.BigAutoField)]
        _column_cache[model] = [_column(f) for f in kept]
    return _column_cache[model]


def _column(field: Any) -> _Column:
    if field not in _field_cache:
        target = field.target_field if field.is_relation else field
        spelled = field.db_type(connection) if field.is_relation else field.rel_db_type(connection)
        base = spelled.partition("(")[0].strip()
        kind = _KINDS.get(base, base)
        kind = kind if kind in arrays.KINDS else ""
        _field_cache[field] = _Column(
            field.attname, field.column, kind, f"%s::{kind or spelled}[]", isinstance(target, models.JSONField)
        )
    return _field_cache[field]


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        return DjangoJSONEncoder().encode(value)
