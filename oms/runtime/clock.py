"""The time in SQL: every statement of the desk that needs it asks `desk_clock()`, and a simulation may tell it another.

The function is the real clock wherever it was made by a migration. Only a database that a simulation has for itself gets
`SIMULATED` in its place, which answers what the session was last told.
"""

from datetime import datetime

from django.db import migrations

from oms.runtime import sql

REAL = "CREATE OR REPLACE FUNCTION desk_clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT clock_timestamp()'"
SIMULATED = (
    "CREATE OR REPLACE FUNCTION desk_clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE "
    "AS $$SELECT coalesce(nullif(current_setting('oms.simulated_time', true), '')::timestamptz, clock_timestamp())$$"
)
IS_REAL = "SELECT prosrc = 'SELECT clock_timestamp()' FROM pg_proc WHERE proname = 'desk_clock'"


def make_clock() -> migrations.RunSQL:
    """Return the migration operation that makes the function."""
    return migrations.RunSQL(REAL, "DROP FUNCTION desk_clock()")


def simulate() -> None:
    """Let the time of this database be what `tell` says; never in one that trades."""
    sql.run(SIMULATED)


def tell(at: datetime) -> None:
    """Set the simulated time of this session, until it ends."""
    sql.run("SELECT set_config('oms.simulated_time', %s, false)", [at.isoformat()])


def is_real() -> bool:
    """Tell whether statements see the real time."""
    row = sql.run(IS_REAL).fetchone()
    return bool(row and row[0])
