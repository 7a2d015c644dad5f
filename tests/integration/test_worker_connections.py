"""A worker keeps its database connection from task to task, but not a broken one."""

import psycopg
import pytest
from django.db import OperationalError, connection

from oms.celery import app
from oms.runtime import sql


@app.task(name="tests.backend")
def backend() -> int:
    """Return the server process that serves this connection."""
    return int(sql.run("SELECT pg_backend_pid()").fetchall()[0][0])


@pytest.mark.django_db(transaction=True)
def test_a_task_after_a_lost_connection_gets_a_new_one() -> None:
    backend.run()
    first = backend.apply().get()
    assert backend.apply().get() == first

    with psycopg.connect(**_server(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    with pytest.raises(OperationalError):
        backend.apply(throw=True)
    with pytest.raises(OperationalError):
        backend.run()  # without the signal the connection stays broken

    assert backend.apply(throw=True).get() != first


def _server() -> dict[str, object]:
    known = connection.settings_dict
    return {
        "host": known["HOST"],
        "port": known["PORT"],
        "user": known["USER"],
        "password": known["PASSWORD"],
        "dbname": known["NAME"],
    }
