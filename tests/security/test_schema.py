"""The API against its own description: generated requests, as every role, end without a 500, and a refusal stores nothing.

A few requests a route run with all tests; `make fuzz` makes many more (FUZZ examples a route). Requests are generated while
the test's transaction stands idle, for as long as that takes on a busy machine; what one route wrote is taken back before the
next, as rows that are changed thousands of times in one transaction grow ever slower to read.
"""

import os
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
import yaml
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from oms.runtime import sql
from tests.security.house import UNSAFE, House
from tests.security.test_access import state

EXAMPLES = int(os.environ.get("FUZZ", "2"))
WAYS = {"positive": GenerationMode.POSITIVE, "negative": GenerationMode.NEGATIVE}


def operations(house: House) -> list[Any]:
    """Return every operation of the schema that the desk serves."""
    served = yaml.load(house.owner.get("/api/schema/").content, Loader=yaml.CSafeLoader)
    schema = schemathesis.openapi.from_dict(served)
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("way", WAYS)
def test_generated_requests_never_end_in_a_failure_and_refusals_store_nothing(house: House, way: str) -> None:
    sql.run("SET LOCAL idle_in_transaction_session_timeout = 0")  # making up a request may take its time
    clients = {**house.clients, "owner": house.owner}
    tried, failures = 0, []

    def send(operation: Any, data: st.DataObject) -> None:
        nonlocal tried
        case = data.draw(operation.as_strategy(generation_mode=WAYS[way]))
        client = clients[data.draw(st.sampled_from(sorted(clients)))]
        path = case.formatted_path
        if data.draw(st.booleans()):  # half of the requests find their object
            for place, thing in (("{code}", "account"), ("{id}", "order")):
                path = operation.path.replace(place, house.things[thing]) if place in operation.path else path
        before = state()
        body = None if isinstance(case.body, schemathesis.core.NotSet) else case.body
        headers = {
            k: str(v) for k, v in (case.headers or {}).items() if k == "Idempotency-Key" and str(v).isprintable()
        }
        answer = client.call(case.method.upper(), path.replace("{", "%7B"), body, **headers)
        tried += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            failures.append((case.method, path, body, answer.status_code))
        if answer.status_code >= 400:
            assert answer.headers["Content-Type"].startswith("application/problem+json"), (
                case.method,
                path,
                answer.content,
            )
            if case.method.upper() in UNSAFE:
                assert state() == before, (case.method, path, body)

    def tries(operation: Any) -> None:
        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.data())
        def run(data: st.DataObject) -> None:
            send(operation, data)

        run()

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    for operation in operations(house):
        if operation.path.startswith("/api/v1/"):
            # nothing can be wrong with a request that takes nothing
            block = transaction.atomic()
            block._from_testcase = True  # operations open theirs as within the test's own
            with block:
                with suppress(Unsatisfiable):
                    tries(operation)
                transaction.set_rollback(True)
    assert failures == []
    assert tried > 60
