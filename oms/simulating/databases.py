"""A database for each run: copied from one that was made and furnished once, dropped when the run is over."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.core.management import call_command
from django.db import connection

from brokers import adapters
from brokers import queries as brokers
from oms.runtime import sql
from orders.queries import forget_codes


class Databases:
    """A template beside the database of the settings, and copies of it. Nothing else is looked at or changed."""

    def __init__(self, furnish: Callable[[], None]) -> None:
        self.usual = str(connection.settings_dict["NAME"])
        self.template = f"{self.usual[:36]}_simulated_{os.getpid()}"  # two at once have one each
        self.furnish = furnish

    @contextmanager
    def ready(self) -> Iterator["Databases"]:
        """Make the template; drop it at the end, and be back at the usual database."""
        self._run(f'DROP DATABASE IF EXISTS "{self.template}"', f'CREATE DATABASE "{self.template}"')
        try:
            self._use(self.template)
            call_command("migrate", verbosity=0, interactive=False)
            self.furnish()
            self._use(self.usual)
            yield self
        finally:
            self._use(self.usual)
            self._run(f'DROP DATABASE IF EXISTS "{self.template}" WITH (FORCE)')

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Work on a copy of the template."""
        name = f"{self.template}_run"
        self._run(f'DROP DATABASE IF EXISTS "{name}"', f'CREATE DATABASE "{name}" TEMPLATE "{self.template}"')
        try:
            self._use(name)
            sql.run("SET synchronous_commit = off")  # the run's own: nothing of it outlives it
            yield
        finally:
            self._use(self.usual)
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _use(self, name: str) -> None:
        connection.close()
        connection.settings_dict["NAME"] = name
        brokers.forget_cache()
        forget_codes()
        adapters.forget()

    def _run(self, *statements: str) -> None:
        self._use(self.usual)
        for statement in statements:
            sql.run(statement)
        connection.close()
