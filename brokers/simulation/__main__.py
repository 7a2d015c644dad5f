"""Run simulated brokers in a process of their own: `python -m brokers.simulation --config FILE`."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import msgspec

from brokers.simulation.server import HostConfig, VenueHost


async def serve(config: HostConfig) -> None:
    """Open the venues, say where they are, and stay until told to stop."""
    host = VenueHost(config)
    await host.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sys.stdout.write(json.dumps({"ports": host.ports}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await host.stop()


def main() -> None:
    """Read the configuration and serve it."""
    parser = argparse.ArgumentParser(description="Simulated brokers, each on its own port.")
    parser.add_argument("--config", type=Path, required=True, help="JSON: data, host, instruments, brokers")
    config = msgspec.json.decode(parser.parse_args().config.read_bytes(), type=HostConfig)
    asyncio.run(serve(config))


if __name__ == "__main__":
    main()
