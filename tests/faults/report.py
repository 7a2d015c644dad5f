"""What `make faults` leaves behind: var/reports/faults-<utc>.json, and a line for each proof."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.__main__ import machine

ROOT = Path(__file__).resolve().parents[2]
STARTED = datetime.now(UTC)
_proofs: dict[str, Any] = {}


def publish(proof: str, *, n: int, **figures: Any) -> None:
    """Keep the figures of a proof that found nothing lost or doubled in `n` orders.

    Nothing in n tries bounds the rate at 3/n, with 95 % confidence.
    """
    figures = {"orders": n, "lost": 0, "duplicated": 0} | figures | {"bound_95": 3 / n}
    _proofs[proof] = figures
    target = ROOT / "var" / "reports" / f"faults-{STARTED:%Y%m%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"at": STARTED.isoformat(), **machine(), "proofs": _proofs}, indent=2) + "\n")
    told = ", ".join(f"{name} {value}" for name, value in figures.items() if name != "bound_95")
    print(f"\n{proof}: {told}; none of {n}: below {300 / n:.2g} % at 95 %\n  {target.relative_to(ROOT)}")
