"""Keep docs/words.json: every code word that the desk ever stored or sent, so that none is taken away or given another meaning.

`python -m docs.generate_words` adds the new ones. A word that leaves the code moves to `RETIRED` and is never used again.
"""

import json
from enum import Enum
from pathlib import Path

from brokers.adapters.port import Outcome, ReportKind
from oms.kernel.reasons import Reason
from orders.domain.tickets import ORDER_TYPES, SIDES, TIMES_IN_FORCE
from orders.states import OrdStatus, SubmissionState
from risk.domain.limits import KINDS
from risk.domain.replaying import CHECKS
from risk.domain.rules import MARGINS, SELF_TRADE_MODES
from risk.domain.scopes import HALT_SCOPES, LIMIT_SCOPES

PAGE = Path(__file__).parent / "words.json"
RETIRED: dict[str, frozenset[str]] = {}
"""Tombstones, by list: what these words meant is over, and nobody may mean another thing by them."""


def _of(kind: type[Enum]) -> tuple[str, ...]:
    return tuple(str(member.value) for member in kind)


def words() -> dict[str, tuple[str, ...]]:
    """Return the words in use, by list."""
    return {
        "reason": _of(Reason),
        "order_status": _of(OrdStatus),
        "submission_state": _of(SubmissionState),
        "report_kind": _of(ReportKind),
        "outcome": _of(Outcome),
        "side": SIDES,
        "order_type": ORDER_TYPES,
        "time_in_force": TIMES_IN_FORCE,
        "limit_kind": KINDS,
        "limit_scope": LIMIT_SCOPES,
        "halt_scope": HALT_SCOPES,
        "check": tuple(CHECKS),
        "margin": MARGINS,
        "self_trade": SELF_TRADE_MODES,
    }


def known() -> dict[str, list[str]]:
    """Return the words ever seen, by list."""
    found: dict[str, list[str]] = json.loads(PAGE.read_text()) if PAGE.exists() else {}
    return found


def main() -> None:
    """Add what is new."""
    seen, kept = words(), known()
    merged = {name: sorted({*kept.get(name, ()), *seen.get(name, ())}) for name in sorted({*kept, *seen})}
    PAGE.write_text(json.dumps(merged, indent=1) + "\n")


if __name__ == "__main__":
    main()
