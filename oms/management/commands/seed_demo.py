"""Make the demo desk: people, accounts, instruments, brokers, limits and money. Once; a second run changes nothing."""

import argparse
import secrets
import socket
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand, CommandError

from brokers import queries as reference
from brokers.models import Instrument
from brokers.operations import QuoteUpdate, record_quotes
from brokers.simulation.demo import DEMO_BROKERS, DEMO_INSTRUMENTS
from oms.kernel.actor import Actor
from oms.kernel.ids import uuid7
from oms.runtime.commands import actor_named, add_options, tell
from oms.runtime.people import DEMO_PASSWORD, DEMO_PEOPLE
from portfolio import operations as portfolio
from portfolio.models import Account, Strategy
from risk.models import Limit

ACCOUNTS = (
    ("MAIN", "Main book", "USD", {"USD": "10000000", "USDT": "1000000"}, ("trader",)),
    ("ALPHA", "Alpha strategy", "USD", {"USD": "2000000"}, ("trader2",)),
    ("EURO", "Euro book", "EUR", {"EUR": "2000000"}, ("trader",)),
)
LIMITS = {
    "order_quantity": "100000",
    "order_notional": "5000000",
    "position": "1000000",
    "price_collar": "0.05",
    "quote_age": "60",
    "duplicate_window": "2",
}


class Command(BaseCommand):
    """Refuses to run on production settings."""

    help = "Make the demo desk, once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the common options."""
        add_options(parser, changes=True)

    def handle(self, *args: Any, **options: Any) -> None:
        """Seed, unless it was done."""
        if settings.PRODUCTION:
            raise CommandError("Demo users have a known password; production settings refuse them.", returncode=2)
        there = Account.objects.filter(code="MAIN").exists()
        if not there and not options["dry_run"]:
            seed(datetime.now(UTC), actor_named(options["user"]))
        told = {"seeded": not there and not options["dry_run"], "was_there": there}
        tell(
            self,
            options,
            told,
            f"Demo desk: {'was there' if there else 'would be made' if options['dry_run'] else 'made'}.",
        )


def seed(at: datetime, actor: Actor) -> None:
    """Write the demo desk, through the operations that people use."""
    _people()
    fields = (
        "symbol",
        "name",
        "asset_class",
        "base_currency",
        "currency",
        "tick_size",
        "lot_size",
        "settlement_days",
        "calendar",
    )
    Instrument.objects.bulk_create(Instrument(**{f: i[f] for f in fields}) for i in DEMO_INSTRUMENTS)
    reference.forget_cache()
    for code, name, currency, _, _ in ACCOUNTS:
        portfolio.open_account(code=code, name=name, base_currency=currency, actor=actor, at=at)
    Strategy.objects.bulk_create(Strategy(code=c) for c in ("momentum", "carry", "rebalance"))
    for (code, broker), port in zip(DEMO_BROKERS.items(), _free_ports(len(DEMO_BROKERS)), strict=True):
        there = {"host": "127.0.0.1", "port": port, "key": secrets.token_urlsafe(16), "venue": broker["venue"]}
        portfolio.add_broker(
            code=code,
            name=broker["name"],
            adapter="simulated",
            settings=there | {"fees": broker["fees"]},
            actor=actor,
            at=at,
        )
    _first_quotes(at)  # ahead of the money, so that its worth in the accounts' own currency is known
    for code, _, _, money, traders in ACCOUNTS:
        for currency, amount in money.items():
            portfolio.transfer(
                account=code, kind="deposit", currency=currency, amount=Decimal(amount), to="", reason="opening balance",
                key=f"seed-{currency}", actor=actor, at=at,
            )  # fmt: skip
        for user in traders:
            portfolio.grant(account=code, user=user, expires_at=None, actor=actor, at=at)
    Limit.objects.bulk_create(
        Limit(
            id=uuid7(),
            scope_kind="firm",
            kind=k,
            value=v,
            status="active",
            effective_from=at,
            reason="demo",
            created_at=at,
        )
        for k, v in LIMITS.items()
    )


def _people() -> None:
    users = get_user_model().objects
    for name, role in DEMO_PEOPLE.items():
        user = users.create_user(name, password=DEMO_PASSWORD, is_staff=True, is_superuser=role == "admin")
        user.groups.add(Group.objects.get_or_create(name=role)[0])


def _first_quotes(at: datetime) -> None:
    updates = []
    for row in DEMO_INSTRUMENTS:
        mid, tick = Decimal(row["start_price"]), Decimal(row["tick_size"])
        bid = mid.quantize(tick) - tick
        updates.append(
            QuoteUpdate(row["symbol"], bid, bid + 2 * tick, Decimal(row["size"]), Decimal(row["size"]), at=at)
        )
    record_quotes(updates, source="market", at=at)


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
