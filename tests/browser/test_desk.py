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
        cwd=ROOT, env={**kept, "OMS_ENV": "demo", "OMS_PROOF_SECONDS": "1"}, stdout=log, stderr=subprocess.STDOUT,
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
    """A page of its own that fails the test on any script error, refused resource or failed call but those `expected`."""
    context = browser.new_context(viewport={"width": 1440, "height": 860}, base_url=address)
    opened = context.new_page()
    faults: list[str] = []
    opened.expected = None
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    yield opened
    context.close()
    assert [f for f in faults if not (opened.expected and opened.expected.search(f))] == []


def log_in(page: Any, name: str) -> None:
    page.goto("/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", "demo")
    page.click("text=Log in")
    page.wait_for_selector("#connection[data-state=live]")


def held(page: Any, symbol: str) -> float:
    """Return the quantity the positions page shows."""
    page.goto("/positions/")
    page.wait_for_selector("#positions tbody tr, #empty:not([hidden]):has-text('Flat')")
    cells = page.locator(f'#positions tr[data-id="{symbol}"] td')
    return float(re.sub(r"[^\d.]", "", cells.nth(1).inner_text())) if cells.count() else 0.0


def write(page: Any, symbol: str, quantity: str, **fields: str) -> None:
    """Fill the ticket; `limit_price` makes it a limit order."""
    page.fill("#ticket [name=symbol]", symbol)
    page.fill("#ticket [name=quantity]", quantity)
    page.select_option("#ticket [name=order_type]", "limit" if "limit_price" in fields else "market")
    for name, value in fields.items():
        page.fill(f"#ticket [name={name}]", value)


def send(page: Any) -> None:
    """Press Send, and Enter where the desk asks."""
    page.click("#send")
    page.wait_for_selector("dialog.ask >> text=Send this order?")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.ask", state="detached")


def row(page: Any, text: str) -> Any:
    """Return the newest order's line that holds the text."""
    return page.locator(f'#orders tbody tr:has-text("{text}")').first


def test_a_trader_sends_and_sees_it_filled_and_the_position_move(page: Any) -> None:
    log_in(page, "trader")
    page.select_option("#account", "MAIN")
    before = held(page, "AAPL")
    page.goto("/")
    page.wait_for_selector("#connection[data-state=live]")
    page.keyboard.press("n")
    page.keyboard.type("AAPL")
    page.fill("[name=quantity]", "0.12k")
    page.wait_for_selector("#preview-out >> text=Would be sent")  # without being asked for
    page.click("#send")
    asked = page.locator("dialog.ask").inner_text()
    assert all(told in asked for told in ("buy 120 AAPL", "USD", "MAIN", "Position"))
    page.keyboard.press("Enter")
    page.wait_for_selector('#orders tbody tr:first-child .status:text-is("filled")', timeout=20_000)
    assert page.locator("#orders tbody tr:first-child td").nth(4).inner_text() == "120"
    assert held(page, "AAPL") == before + 120


def test_no_is_no(page: Any) -> None:
    log_in(page, "trader")
    write(page, "AAPL", "17")
    page.click("#send")
    page.wait_for_selector("dialog.ask >> text=Send this order?")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.ask", state="detached")
    assert page.locator('#orders td:text-is("17")').count() == 0


def test_an_order_that_risk_denies_says_why(page: Any) -> None:
    log_in(page, "trader")
    page.keyboard.press("n")
    page.keyboard.type("AAPL")
    page.fill("[name=quantity]", "99999999")
    page.wait_for_selector("#preview-out >> text=Would be denied: 99999999 units are above")
    page.click("#send")
    page.click("dialog.ask >> text=Send all the same")
    page.wait_for_selector('#orders tbody tr:first-child .status:text-is("denied")')
    assert "Denied: 99999999 units are above" in page.locator("#ticket-fault").inner_text()
    assert row(page, "denied").locator("td.note").inner_text() == "quantity limit"


def test_a_trailing_stop_waits_at_the_desk_and_goes_when_the_market_turns(page: Any) -> None:
    """On real parts: the pricer follows the demo market, lets the order go, a simulated broker fills it."""
    log_in(page, "trader")
    page.select_option("#account", "MAIN")
    write(page, "AAPL", "13")
    page.select_option("#ticket [name=order_type]", "trailing_stop")
    page.fill("#ticket [name=trail]", "40")
    send(page)
    page.wait_for_selector('#orders tbody tr:first-child .status:text-is("new")')
    assert "trails by 40" in page.locator("#orders tbody tr:first-child").inner_text()
    page.fill("#ticket [name=quantity]", "14")
    page.fill("#ticket [name=trail]", "0.01")
    send(page)
    page.wait_for_selector('#orders tbody tr:first-child .status:text-is("filled")', timeout=30_000)
    assert row(page, "trails by 40").locator(".status").inner_text() == "new"


def test_a_large_order_is_worked_paused_and_resumed_with_its_progress_in_sight(page: Any) -> None:
    """On real parts: the pricer sends slices, simulated brokers fill them, the bar grows."""
    log_in(page, "trader")
    page.select_option("#account", "MAIN")
    write(page, "NVDA", "90")
    page.select_option("#ticket [name='algo.name']", "twap")
    page.fill("#ticket [name='algo.minutes']", "0.5")
    page.fill("#ticket [name='algo.slices']", "15")
    page.wait_for_selector("#preview-out >> text=twap, 15 slices")
    send(page)
    line = page.locator('#orders tbody tr:has-text("NVDA")').first
    line.locator('[role=progressbar]:not([aria-valuenow="0"])').wait_for(timeout=20_000)
    line.click()
    page.wait_for_selector("#details >> text=Slices")
    page.wait_for_selector("#details >> text=order slice sent")
    line.locator("button:has-text('Pause')").click()
    line.locator('.status:text-is("suspended")').wait_for(timeout=20_000)
    line.locator("button:has-text('Resume')").click()
    line.locator('.status:text-is("filled")').wait_for(timeout=60_000)
    assert line.locator("[role=progressbar]").get_attribute("aria-valuenow") == "100"


def test_a_bracket_protects_what_its_entry_filled_and_ends_as_a_whole(page: Any) -> None:
    """On real parts: the entry fills, the gateway lets the exits begin, a broker takes both, the group is canceled."""
    log_in(page, "trader")
    page.select_option("#account", "MAIN")
    write(page, "JPM", "11")
    page.fill("#ticket [name='take_profit.limit_price']", "100")
    page.fill("#ticket [name='stop_loss.stop_price']", "480")
    page.expected = re.compile("400")
    page.click("#send")
    page.wait_for_selector("#ticket-fault >> text=must lie above the entry")
    page.fill("#ticket [name='take_profit.limit_price']", "480")
    page.fill("#ticket [name='stop_loss.stop_price']", "100")
    send(page)
    line = page.locator('#orders tbody tr:has-text("JPM")')
    profit = line.filter(has_text="↳ profit")
    profit.locator('.status:text-is("new")').wait_for(timeout=30_000)
    line.filter(has_text="↳ stop").locator('.status:text-is("new")').wait_for(timeout=30_000)
    line.filter(has_text="⊏").locator('.status:text-is("filled")').click()
    page.wait_for_selector("#details >> text=Group")
    assert page.locator("#details tr:has-text('stop loss')").count() == 1
    page.click("#details >> text=Cancel the group")
    line.filter(has_text="↳ stop").locator('.status:text-is("canceled")').wait_for(timeout=30_000)
    profit.locator('.status:text-is("canceled")').wait_for(timeout=30_000)


def test_an_amount_becomes_a_quantity(page: Any) -> None:
    log_in(page, "trader")
    page.select_option("#account", "MAIN")
    write(page, "AAPL", "")
    page.select_option("#ticket [name=size_kind]", "notional")
    page.fill("#ticket [name='size_by.notional']", "10k")
    page.wait_for_selector("#preview-out >> text=Would be sent: 4")
    page.click("#send")
    page.wait_for_selector("dialog.ask >> text=buy 4")


def test_a_ticket_that_is_wrong_says_where(page: Any) -> None:
    log_in(page, "trader")
    with page.expect_response("**/orders/preview") as answer:
        write(page, "AAPL", "1.5")
    assert answer.value.status == 400
    page.expected = re.compile("400")  # the answer that this test asks for
    page.click("#send")
    page.wait_for_selector("#ticket [name=quantity][aria-invalid=true]")
    assert "quantity" in page.locator("#ticket-fault").inner_text()


def test_a_resting_order_is_found_replaced_and_canceled_by_keyboard(page: Any) -> None:
    log_in(page, "trader")
    write(page, "MSFT", "7", limit_price="1")
    send(page)
    page.wait_for_selector('#orders tr:has-text("MSFT") .status:text-is("new")', timeout=20_000)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("msft limit")
    page.keyboard.press("Tab")
    assert page.locator("#orders tbody tr").count() == 1
    page.locator("body").press("j")
    page.wait_for_selector("#details >> text=order placed")
    assert "PRIME" in page.locator("#details").inner_text()
    page.locator("body").press("r")
    page.keyboard.type("1.01")
    page.keyboard.press("Enter")
    page.wait_for_selector('#orders tr:has-text("MSFT"):has-text("1.01")', timeout=20_000)
    page.locator("body").press("x")
    page.wait_for_selector("dialog.ask >> text=buy 7 MSFT")
    page.keyboard.press("Enter")
    page.wait_for_selector('#orders tr:has-text("MSFT") .status:text-is("canceled")', timeout=20_000)


def test_all_open_orders_end_only_by_the_accounts_name(page: Any) -> None:
    log_in(page, "trader")
    page.select_option("#account", "EURO")
    page.wait_for_selector("#connection[data-state=live]")
    write(page, "EUR/USD", "1000", limit_price="0.5")
    send(page)
    page.wait_for_selector('#orders .status:text-is("new")', timeout=20_000)
    page.click("#cancel-all")
    yes = page.locator("dialog.ask button[value=yes]")
    assert yes.is_disabled()
    page.keyboard.type("EURO")
    page.keyboard.press("Enter")
    page.wait_for_selector('#orders .status:text-is("canceled")', timeout=20_000)
    assert page.locator("#cancel-all").is_hidden()


def test_a_trader_sees_nothing_of_anothers_account(page: Any) -> None:
    log_in(page, "trader2")
    assert page.locator("#account option").all_inner_texts() == ["ALPHA"]
    page.wait_for_selector("#empty >> text=No orders yet")
    assert page.locator("nav >> text=Operations").count() == 0
    told = page.evaluate("""async () => {
      const orders = await (await fetch("/api/v1/orders?account=MAIN")).json();
      return [orders.results.length, (await fetch("/operations/")).status];
    }""")
    page.expected = re.compile("403")
    assert told == [0, 403]


def test_a_risk_officer_halts_and_everybody_sees_it(page: Any) -> None:
    log_in(page, "risk")
    page.goto("/risk/")
    page.wait_for_selector("#limits tbody tr")
    page.wait_for_selector('#uses tbody tr:has-text("position")')
    page.wait_for_selector('#matrix tbody tr:has-text("trader")')
    page.wait_for_selector('#shocks tbody tr:has-text("all prices")')
    page.select_option("#halt [name=kind]", "symbol")
    page.fill("#halt [name=key]", "KO")
    page.fill("#halt [name=reason]", "drill")
    page.click("text=Engage")
    page.wait_for_selector("dialog.ask >> text=Halt symbol KO?")
    page.keyboard.type("KO")
    page.keyboard.press("Enter")
    page.wait_for_selector('#halt-rows tr:has-text("symbol KO")')
    page.wait_for_selector("#halts >> text=HALT symbol KO")


def test_releasing_a_halt_asks_for_the_password_until_it_is_right(page: Any) -> None:
    log_in(page, "risk2")
    page.goto("/risk/")
    page.select_option("#halt [name=kind]", "symbol")
    page.fill("#halt [name=key]", "XOM")
    page.fill("#halt [name=reason]", "drill")
    page.click("text=Engage")
    page.wait_for_selector("dialog.ask >> text=Halt symbol XOM?")
    page.keyboard.type("XOM")
    page.keyboard.press("Enter")
    page.wait_for_selector('#halt-rows tr:has-text("symbol XOM")')
    page.click("text=Log out")
    log_in(page, "risk")
    page.goto("/risk/")
    time.sleep(1.5)  # the log-in proves for a second
    page.expected = re.compile("401|403")  # the screen may ask once more while it logs out
    line = page.locator('#halt-rows tr:has-text("symbol XOM")')
    line.locator("button").click()
    page.fill("dialog.ask [name=reason]", "calm")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.ask >> text=Is it you?")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.ask [role=alert] >> text=do not match")
    page.keyboard.type("demo")
    page.keyboard.press("Enter")
    line.filter(has_text="by user:risk").locator("button").wait_for(state="detached")


def test_operations_book_a_deposit_once(page: Any) -> None:
    log_in(page, "ops")
    page.goto("/operations/")
    page.wait_for_selector('#brokers tr:has-text("PRIME") >> text=connected')
    page.select_option("#account", "ALPHA")
    ledger = page.locator('#cash tr[data-id="USD"] td').nth(1)
    ledger.wait_for()
    before = float(re.sub(r"[^\d.]", "", ledger.inner_text()))
    for name, value in {"amount": "2.5k", "currency": "usd", "reason": "drill"}.items():
        page.fill(f"#transfer [name={name}]", value)
    page.click("#transfer button")
    page.wait_for_selector("dialog.ask >> text=2\u2009500 USD")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "sum => Number(document.querySelector('#cash tr[data-id=\"USD\"]').cells[1].textContent.replace(/[^\\d.]/g, '')) === sum",
        arg=before + 2500,
    )


def test_weights_take_two_people_and_say_what_they_change(page: Any) -> None:
    log_in(page, "ops")
    page.goto("/execution/")
    page.wait_for_selector("#propose:not([hidden])")
    page.select_option("#propose [name=name]", "miss_bps")
    page.fill("#propose [name=value]", "12")
    page.fill("#propose [name=reason]", "drill")
    page.click("#propose button")
    page.wait_for_selector('#weights tr:has-text("drill") >> text=proposed')
    page.expected = re.compile("403")
    page.click('#weights tr:has-text("drill") button')
    page.click("dialog.ask >> text=Put it in force")
    page.wait_for_selector(".toast >> text=Another person")
    page.click("text=Log out")
    log_in(page, "risk")
    page.goto("/execution/")
    page.click('#weights tr:has-text("drill") button')
    page.wait_for_selector("dialog.ask >> text=user:ops")
    page.keyboard.press("Enter")
    page.wait_for_selector('#weights tr:has-text("drill") >> text=in force')


def test_dark_and_light_stay_as_chosen(page: Any) -> None:
    log_in(page, "trader")
    back = "getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(back)
    page.locator("body").press("t")
    other = page.evaluate(back)
    assert other != first
    page.goto("/positions/")
    assert page.evaluate(back) == other


def test_a_ticket_half_written_outlives_a_log_in_that_ended(page: Any) -> None:
    log_in(page, "trader")
    write(page, "MSFT", "33", limit_price="1.23")
    page.expected = re.compile("401|403|WebSocket")
    page.context.clear_cookies()
    page.goto("/")
    assert page.locator("[name=username]").is_visible()
    log_in(page, "trader")
    assert page.input_value("#ticket [name=symbol]") == "MSFT"
    assert page.input_value("#ticket [name=limit_price]") == "1.23"


def test_the_keys_are_listed(page: Any) -> None:
    log_in(page, "trader")
    page.locator("body").press("?")
    page.wait_for_selector("dialog >> text=Cancel the chosen order")
    page.keyboard.press("Escape")
    page.locator("body").press("g")
    page.locator("body").press("p")
    page.wait_for_url("**/positions/")


def test_a_lost_connection_is_told_and_mended(page: Any) -> None:
    lines: list[Any] = []
    cut = False

    def line(socket: Any) -> None:
        if cut:
            socket.close()
        else:
            lines.append(socket)
            socket.connect_to_server()

    page.route_web_socket("**/ws/blotter/", line)
    log_in(page, "trader")
    cut = True
    lines[-1].close()
    page.wait_for_selector("#stale:not([hidden]) >> text=No connection to the desk since")
    cut = False
    page.wait_for_selector("#connection[data-state=live]", timeout=30_000)
    assert page.locator("#stale").is_hidden()


def test_positions_show_the_whole_in_the_accounts_currency_and_how_it_did(page: Any) -> None:
    log_in(page, "trader")
    page.goto("/positions/")
    page.wait_for_selector("#whole >> text=All in USD")
    page.wait_for_selector("#performance >> text=Return, time-weighted")
    assert "%" in page.locator("#performance b").first.inner_text()
