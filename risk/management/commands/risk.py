"""Look again at what risk decided."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from oms.runtime.commands import add_options, tell
from risk.queries import replay_verdicts

SHOWN_MAX = 50


class Command(BaseCommand):
    """`risk replay`: exit 0 when every stored verdict comes out as it was given, 1 with those that don't."""

    help = "Judge every stored verdict again by the numbers that were stored with it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the one action there is."""
        parser.add_argument("verb", choices=["replay"])
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Replay and report."""
        judged, differing = replay_verdicts()
        told = {"judged": judged, "differing": differing[:SHOWN_MAX], "count_differing": len(differing)}
        lines = [f"{d['order']}: stored {d['stored']}, replayed {d['replayed']}" for d in differing[:SHOWN_MAX]]
        tell(self, options, told, "\n".join([*lines, f"{judged} verdicts judged again, {len(differing)} differ."]))
        if differing:
            raise SystemExit(1)
