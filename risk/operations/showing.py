"""Pushing what is used and left of limits to the screens, as it changes."""

from datetime import datetime

from oms.kernel import json
from oms.runtime import live
from portfolio.models import Account
from risk.queries.exposure import exposure_out


def push_exposures(shown: dict[str, str], *, at: datetime) -> dict[str, str]:
    """Publish the exposures of accounts that look otherwise than what was shown; return what is shown now.

    Without a sequence, like marks: the latest wins, and one that is lost is overtaken by the next.
    """
    now = {}
    for account in Account.objects.order_by("code"):
        now[account.code] = json.dumps(exposure_out([account], at=at))
    frames = [
        (code, f'{{"type":"exposure","account":{json.dumps(code)},"data":{rows}}}')
        for code, rows in now.items()
        if shown.get(code) != rows
    ]
    live.publish_marks(frames, kind="exposure")
    return now
