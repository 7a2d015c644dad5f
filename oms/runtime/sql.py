"""Set-based SQL for the hot paths: many rows, one statement, server-side binding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models
from psycopg.rows import dict_row, tuple_row

from oms.kernel import json

_recorder: ContextVar[list[str] | None] = ContextVar("statements", default=None)


class StaleVersion(Exception):
    """A row changed between the read and the write of one operation."""


def run(statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
    """Execute one statement on Django's connection with server-side binding; return the cursor, rows as tuples."""
    return _run(statement, parameters, tuple_row)


def rows(statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
    """Execute a query and return its rows as dictionaries."""
    return _run(statement, parameters, dict_row).fetchall()


def _run(statement: str, parameters: Any, factory: Any) -> psycopg.Cursor[Any]:
    connection.ensure_connection()
    statements = _recorder.get()
    if statements is not None:
        statements.append(statement)
    with connection.wrap_database_errors:
        cursor = psycopg.Cursor(connection.connection, row_factory=factory)
        return cursor.execute(statement, parameters or None)


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Collect the statements run through this module, for tests that pin their number."""
    statements: list[str] = []
    token = _recorder.set(statements)
    try:
        yield statements
    finally:
        _recorder.reset(token)


def insert(objects: Sequence[models.Model], *, on_conflict: str = "") -> int:
    """Insert model instances of one class with one statement; return how many rows went in.

    `on_conflict` is the clause after the rows, for example `ON CONFLICT DO NOTHING`.
    """
    if not objects:
        return 0
    fields = _columns(type(objects[0]))
    columns = ", ".join(f'"{f.column}"' for f in fields)
    arrays = ", ".join(_placeholder(f) for f in fields)
    statement = f'INSERT INTO "{objects[0]._meta.db_table}" ({columns}) SELECT * FROM unnest({arrays}) {on_conflict}'
    return run(statement, [_values(objects, f) for f in fields]).rowcount


def insert_values(
    model: type[models.Model], names: Sequence[str], values: Sequence[Sequence[Any]], *, on_conflict: str = ""
) -> int:
    """Insert rows given as values in the order of the columns named, with one statement; return how many went in.

    For facts written by the thousand: an instance costs more than its row. Columns left out get NULL or the database's
    default; JSON comes as text.
    """
    if not values:
        return 0
    by_column = {f.column: f for f in model._meta.concrete_fields}
    fields = [by_column[n] for n in names]
    columns = ", ".join(f'"{n}"' for n in names)
    arrays = ", ".join(_placeholder(f) for f in fields)
    statement = f'INSERT INTO "{model._meta.db_table}" ({columns}) SELECT * FROM unnest({arrays}) {on_conflict}'
    return run(statement, [list(column) for column in zip(*values, strict=True)]).rowcount


def update(objects: Sequence[models.Model], names: Iterable[str]) -> None:
    """Write the named fields of instances of one class with one statement, matched by primary key.

    A model with a `version` is raised by one in the row and in the instance, and must still have the
    version read: otherwise `StaleVersion`.
    """
    if not objects:
        return
    meta = type(objects[0])._meta
    fields = [meta.get_field(n) for n in names]
    versioned = any(f.name == "version" for f in meta.concrete_fields)
    keys = [meta.pk, meta.get_field("version")] if versioned else [meta.pk]
    aliases = ", ".join([*(f"k{i}" for i in range(len(keys))), *(f"v{i}" for i in range(len(fields)))])
    arrays = ", ".join(_placeholder(f) for f in [*keys, *fields])
    sets = [f'"{f.column}" = u.v{i}' for i, f in enumerate(fields)]
    match = f't."{meta.pk.column}" = u.k0'
    if versioned:
        sets.append('"version" = u.k1 + 1')
        match += ' AND t."version" = u.k1'
    statement = f'UPDATE "{meta.db_table}" t SET {", ".join(sets)} FROM unnest({arrays}) u({aliases}) WHERE {match}'
    written = run(statement, [_values(objects, f) for f in [*keys, *fields]]).rowcount
    if written != len(objects):
        raise StaleVersion(f"{meta.db_table}: {len(objects) - written} of {len(objects)} rows changed meanwhile")
    if versioned:
        for row in objects:
            row.version += 1  # type: ignore[attr-defined]


_column_cache: dict[type[models.Model], list[models.Field[Any, Any]]] = {}
_type_cache: dict[models.Field[Any, Any], str] = {}


def _columns(model: type[models.Model]) -> list[models.Field[Any, Any]]:
    if model not in _column_cache:
        _column_cache[model] = [
            f for f in model._meta.concrete_fields if not isinstance(f, models.AutoField | models.BigAutoField)
        ]
    return _column_cache[model]


_BINARY = (models.JSONField, models.TextField, models.UUIDField, models.DateField, models.BinaryField)


def _placeholder(field: Any) -> str:
    """Return the parameter for a column's values. What is costly to spell travels in binary: as text, every quote in an
    array is escaped one by one, which for JSON costs a hundred times more than all the rest, for ids and times ten."""
    target = field.target_field if field.is_relation else field
    return f"{'%b' if isinstance(target, _BINARY) else '%s'}::{_array_type(field)}"


def _array_type(field: Any) -> str:
    if field not in _type_cache:
        _type_cache[field] = (
            f"{field.rel_db_type(connection) if not field.is_relation else field.db_type(connection)}[]"
        )
    return _type_cache[field]


def _values(objects: Sequence[models.Model], field: Any) -> list[Any]:
    name = field.attname
    values = [getattr(o, name) for o in objects]
    if isinstance(field, models.JSONField):
        return [None if v is None else _json(v) for v in values]
    return values


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        return DjangoJSONEncoder().encode(value)
