"""A worker or a gateway in a process of its own, to be killed: `python -m tests.faults.sender send|follow CODE`."""

import os
import sys
import time
from datetime import UTC, datetime


def main() -> None:
    """Do what a worker or a gateway does, once, on the database that the environment names."""
    import django

    django.setup()
    from brokers import queries
    from orders import operations as desk

    what, code = sys.argv[1:3]
    broker = queries.brokers_by_code()[code]
    if what == "send":
        desk.send(broker, owner=f"sender:{os.getpid()}", clock=lambda: datetime.now(UTC))
        return
    from orders.management.commands.run_gateway import Gateway

    gateway = Gateway(broker)
    gateway.broker = broker
    seconds = float(sys.argv[3])
    import threading

    threading.Timer(seconds, gateway.stop.set).start()
    gateway.run()
    time.sleep(0)


if __name__ == "__main__":
    main()
