"""One id leads from a request's log lines to the worker's and the gateway's."""

from collections.abc import Sequence
from typing import Any

import structlog
from structlog.testing import capture_logs

from orders import operations as desk_operations
from orders.models import Submission
from tests.conftest import Desk


def told(lines: Sequence[Any]) -> dict[str, dict[str, int]]:
    return {line["event"]: dict(line["correlation_ids"]) for line in lines if "correlation_ids" in line}


def test_the_id_of_a_request_is_in_the_logs_of_worker_and_gateway(
    live_desk: Desk,
) -> None:
    with structlog.contextvars.bound_contextvars(correlation_id="asked-1"):
        [placed] = live_desk.place("buy 10 AAPL limit 100")
    with structlog.contextvars.bound_contextvars(correlation_id="asked-2"):
        live_desk.place("buy 5 AAPL limit 99")
    with capture_logs() as lines:
        live_desk.send()
        live_desk.report(*(live_desk.near.report("new", sent) for sent in live_desk.near.sent))
    both = {"asked-1": 1, "asked-2": 1}
    assert told(lines) == {"submissions_answered": both, "reports_applied": both}

    with structlog.contextvars.bound_contextvars(correlation_id="asked-3"):
        desk_operations.cancel(placed.order_id, actor=live_desk.actor(live_desk.alice), at=live_desk.at)
    assert Submission.objects.get(kind="cancel").correlation_id == "asked-3"
    with capture_logs() as lines:
        live_desk.send()
    assert told(lines) == {"submissions_answered": {"asked-3": 1}}
