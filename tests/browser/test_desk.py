"""A person at the desk: log in, send, see it filled, see the position move. Against a real desk, started by its own command."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
READY_SECONDS = 150

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium on this machine: install it (Debian: apt-get install chromium)"
    ),
]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a desk of its own on a free port, and stop it as Ctrl-C would."""
    folder, port = tmp_path_factory.mktemp("desk"), _free_port()
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("DATABASE_URL", "REDIS_URL", "OMS_DATA", "DJANGO_SETTINGS_MODULE")
    }
    log = (folder / "up.log").open("w")
    desk = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--data", str(folder / "data")],
        cwd=ROOT, env={**kept, "OMS_ENV": "demo"}, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    where = f"http://127.0.0.1:{port}"
    try:
        limit = time.monotonic() + READY_SECONDS
        while not _ready(where):
            assert desk.poll() is None, (folder / "up.log").read_text()[-3000:]
            assert time.monotonic() < limit, (folder / "up.log").read_text()[-3000:]
            time.sleep(0.5)
        yield where
    finally:
        desk.terminate()
        desk.wait(60)
        log.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS.split())
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page of its own that fails the test on any script error, refused resource or failed call."""
    context = browser.new_context(viewport={"width": 1440, "height": 860}, base_url=address)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    yield opened
    context.close()
    assert faults == []


def log_in(page: Any, name: str) -> None:
    page.goto("/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", "demo")
    page.click("text=Log in")
    page.wait_for_selector("#connection[data-state=live]")


def held(page: Any, symbol: str) -> float:
    """Return the quantity the positions page shows."""
    page.goto("/positions/")
    page.wait_for_selector("#connection[data-state=live]")
    page.wait_for_timeout(500)
    cells = page.locator(f'#positions tr[data-id="{symbol}"] td')
    return float(re.sub(r"[^\d.]", "", cells.nth(1).inner_text())) if cells.count() else 0.0


def test_a_trader_sends_and_sees_it_filled_and_the_position_move(page: Any) -> None:
    log_in(page, "trader")
    page.select_option("#account", "MAIN")
    before = held(page, "AAPL")
    page.goto("/")
    page.wait_for_selector("#connection[data-state=live]")
    page.keyboard.press("n")
    page.keyboard.type("AAPL")
    page.fill("[name=quantity]", "120")
    page.click("#preview")
    page.wait_for_selector("#preview-out >> text=Would be sent")
    page.click("#send")
    page.wait_for_selector('#orders tbody tr:first-child .status:text-is("filled")', timeout=20_000)
    assert page.locator("#orders tbody tr:first-child td").nth(4).inner_text() == "120"
    assert held(page, "AAPL") == before + 120


def test_an_order_that_risk_denies_says_why(page: Any) -> None:
    log_in(page, "trader")
    page.keyboard.press("n")
    page.keyboard.type("AAPL")
    page.fill("[name=quantity]", "99999999")
    page.click("#send")
    page.wait_for_selector('#orders tbody tr:first-child .status:text-is("denied")')
    assert "Denied" in page.locator("#ticket-fault").inner_text()


def test_a_resting_order_is_found_by_the_filter_and_canceled(page: Any) -> None:
    log_in(page, "trader")
    page.fill("[name=symbol]", "MSFT")
    page.fill("[name=quantity]", "7")
    page.select_option("[name=order_type]", "limit")
    page.fill("#ticket [name=limit_price]", "1")
    page.click("#send")
    page.wait_for_selector('#orders tr:has-text("MSFT") .status:text-is("new")')
    page.click("h1")
    page.keyboard.press("/")
    page.keyboard.type("msft limit")
    assert page.locator("#orders tbody tr").count() == 1
    page.click('#orders tr:has-text("MSFT") >> text=Cancel')
    page.wait_for_selector('#orders tr:has-text("MSFT") .status:text-is("canceled")', timeout=20_000)


def test_a_risk_officer_halts_and_everybody_sees_it(page: Any) -> None:
    log_in(page, "risk")
    page.goto("/risk/")
    page.wait_for_selector("#limits tbody tr")
    page.select_option("#halt [name=kind]", "symbol")
    page.fill("#halt [name=key]", "KO")
    page.fill("#halt [name=reason]", "drill")
    page.click("text=Engage")
    page.wait_for_selector('#halt-rows tr:has-text("symbol KO")')
    page.wait_for_selector("#halts >> text=HALT symbol KO")
