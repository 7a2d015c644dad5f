"""The doorbell: one ring while nobody has come, none while somebody is at it, and never a row that nobody looks for."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_app

from oms.runtime import doorbell
from oms.runtime.redis import client


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    heard: list[str] = []
    client().delete("oms:rung:NEAR", "oms:sending:NEAR")
    monkeypatch.setattr(current_app, "send_task", lambda _, args, **__: heard.append(args[0]))
    yield heard
    client().delete("oms:rung:NEAR", "oms:sending:NEAR")


def test_a_second_ring_waits_for_whoever_comes_for_the_first(rings: list[str]) -> None:
    doorbell.ring(["NEAR"])
    doorbell.ring(["NEAR"])
    assert rings == ["NEAR"]
    doorbell.begin("NEAR")
    assert not doorbell.finish("NEAR")
    doorbell.ring(["NEAR"])
    assert rings == ["NEAR", "NEAR"]


def test_a_ring_while_somebody_sends_is_found_when_they_finish(rings: list[str]) -> None:
    doorbell.begin("NEAR")
    doorbell.ring(["NEAR"])
    assert rings == []
    assert doorbell.finish("NEAR")


def test_what_is_urgent_gets_a_run_of_its_own(rings: list[str]) -> None:
    doorbell.begin("NEAR")
    doorbell.ring(["NEAR"], urgent=True)
    assert rings == ["NEAR"]


def test_a_sender_in_a_long_call_keeps_nobody_waiting(rings: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(doorbell, "AT_WORK_MILLISECONDS", 1)
    doorbell.begin("NEAR")
    while client().exists("oms:sending:NEAR"):
        pass
    doorbell.ring(["NEAR"])
    assert rings == ["NEAR"]
