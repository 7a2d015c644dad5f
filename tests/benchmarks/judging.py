"""What risk costs an order of a batch of 100 with 50 limits in force: CPU of the judging process and of its server, verdicts stored."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.benchmarks.desk import ROOT, Desk

LIMITS = 50
BATCH = 100


def measure(desk: Desk, *, rounds: int) -> dict[str, Any]:
    """Judge batches in a process of its own, each undone after it; microseconds of CPU an order, with 50 limits and with the desk's own."""
    environment = os.environ | {
        "DATABASE_URL": desk.database_url,
        "REDIS_URL": desk.redis_url,
        "OMS_ENV": "demo",
        "DJANGO_SETTINGS_MODULE": "oms.settings",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.judging", str(max(rounds, 3))],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def judge(rounds: int) -> dict[str, Any]:
    """Judge in this process; every round is 20 batches, after 5 that don't count."""
    import statistics
    import time
    from contextlib import suppress
    from datetime import UTC, datetime

    import django

    django.setup()

    import psutil
    from django.db import connection, transaction

    from risk import operations as risk

    def batches(count: int, *, limits: int) -> float:
        spent = 0.0
        for _ in range(count):
            with suppress(_Undone), transaction.atomic():
                intents = _ready(limits)
                server = psutil.Process(connection.connection.info.backend_pid)
                ours, theirs = time.process_time(), sum(server.cpu_times()[:2])
                verdicts = risk.check(intents, at=datetime.now(UTC))
                spent += time.process_time() - ours + sum(server.cpu_times()[:2]) - theirs
                refused = {v.reason for v in verdicts if not v.approved}
                if refused:
                    raise RuntimeError(f"refused: {refused}")
                raise _Undone
        return spent / (count * BATCH) * 1e6

    for limits in (0, LIMITS):
        batches(5, limits=limits)
    runs = [
        {"risk_us_per_order_demo": batches(20, limits=0), "risk_us_per_order": batches(20, limits=LIMITS)}
        for _ in range(rounds)
    ]
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {"rounds": rounds, "limits": LIMITS, "batch": BATCH, **middle, "runs": runs}


class _Undone(Exception):
    """Takes a batch back."""


def _ready(limits: int) -> list[Any]:
    """Lock the account, put limits of many kinds and scopes in force that an order is bound by and passes, and spell the batch."""
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal

    from brokers import queries as brokers
    from oms.kernel.ids import uuid7
    from oms.runtime import sql
    from portfolio.models import Account
    from risk.domain.intents import Intent
    from risk.models import Limit

    account = Account.objects.select_for_update(no_key=True).get(code="MAIN")
    now = datetime.now(UTC)
    sql.run("UPDATE brokers_quote SET at = now(), bid = 100, ask = 100.02, day_open = 100")
    scopes = [("firm", ""), ("account", "MAIN"), ("user", "trader"), ("symbol", "AAPL")]
    kinds = [
        "order_quantity", "order_notional", "position", "position_long", "position_gross", "gross_exposure", "net_exposure",
        "leverage", "concentration", "concentration_class", "price_collar", "price_collar_ticks", "spread",
    ]  # fmt: skip
    wanted = [(kind, *scope) for kind in kinds for scope in scopes][:limits]
    known = set(Limit.objects.filter(status="active").values_list("kind", "scope_kind", "scope_key"))
    Limit.objects.bulk_create(
        Limit(
            id=uuid7(), kind=kind, scope_kind=scope, scope_key=key, value="100000000", status="active", reason="bench",
            effective_from=now - timedelta(days=1), created_at=now,
        )
        for kind, scope, key in wanted
        if (kind, scope, key) not in known
    )  # fmt: skip
    aapl = brokers.instruments_by_symbol()["AAPL"]
    return [
        Intent(
            order_id=uuid7(), account_id=account.pk, account_code="MAIN", base_currency=account.base_currency, account_open=True,
            instrument=aapl, side="buy", quantity=Decimal(n % 9 + 1), order_type="limit", limit_price=Decimal("100.02"),
            user_name="trader", automated=True,
        )
        for n in range(BATCH)
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(judge(int(sys.argv[1]))))
