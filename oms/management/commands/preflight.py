"""Look at everything that a desk needs before it opens."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from oms.preflight import inspect
from oms.runtime.commands import add_options, tell


class Command(BaseCommand):
    """Exit 0: it may open. Exit 1: what is wrong is printed."""

    help = "Check settings, servers, schema, people, limits and brokers before the desk opens."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take --json."""
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Look and report."""
        findings = inspect()
        wrong = [f for f in findings if not f.ok]
        told = {"ready": not wrong, "checks": [f._asdict() for f in findings]}
        lines = [f"{'ok   ' if f.ok else 'WRONG'} {f.check:<11} {f.detail}" for f in findings]
        tell(self, options, told, "\n".join([*lines, f"{len(findings)} checks, {len(wrong)} wrong."]))
        if wrong:
            raise SystemExit(1)
