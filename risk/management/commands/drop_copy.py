"""Copy every execution as it is booked, one JSON object a line."""

import argparse
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from oms.kernel import json
from oms.kernel.errors import DomainError
from portfolio.models import Account
from risk.queries import drop_copy

PAUSE_SECONDS = 0.5


class Command(BaseCommand):
    """Exit 0 when all was copied; with `--follow` it goes on until it is told to stop."""

    help = "Copy executions, busts and corrections of all accounts since a cursor. The last line is the next cursor."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take where to begin, and whether to go on."""
        parser.add_argument("--since", default="", help="the cursor that an earlier run ended with")
        parser.add_argument("--follow", action="store_true", help="go on as executions are booked")
        parser.add_argument("--json", action="store_true", help="lines are JSON in any case")

    def handle(self, *args: Any, **options: Any) -> None:
        """Copy."""
        cursor = options["since"]
        while True:
            codes = list(Account.objects.order_by("code").values_list("code", flat=True))
            try:
                copies, cursor = drop_copy(codes, since=cursor)
            except DomainError as error:
                raise CommandError(error.detail, returncode=2) from None
            for copy in copies:
                self.stdout.write(json.dumps(copy))
            if not copies and not options["follow"]:
                break
            if not copies:
                time.sleep(PAUSE_SECONDS)
        self.stdout.write(json.dumps({"next_since": cursor}))
