"""A simulated broker without a socket and without a clock: for runs that must repeat to the last digit.

The same venue, the same protocol and the same adapter as over the network, lies included; only the bytes are handed over
by a call, and the time is whatever `Line.clock` says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from brokers.adapters.port import BrokerUnavailable
from brokers.adapters.simulated.client import SimulatedBroker
from brokers.adapters.simulated.stream import SimulatedStream
from brokers.simulation import wire
from brokers.simulation.answers import reply
from brokers.simulation.server import distort
from brokers.simulation.venue import Venue

LINES: dict[str, Line] = {}
"""Lines to the venues of this process, by code; `build` finds them here."""


class Line:
    """Both ends of the wire to one venue. A venue that is `down` refuses every call, one that is silent takes no part."""

    def __init__(self, venue: Venue, clock: Callable[[], datetime]) -> None:
        self.venue, self.clock = venue, clock
        self.down = False
        self.last = 0  # the hello's answer
        self.answer: bytes | None = None
        self.coming: deque[bytes] = deque()
        self.here: deque[bytes] = deque()

    # -- the venue's end ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the venue do what is due, and put its frames on the wire, as its lies have them."""
        self.venue.tick(self.clock())
        silent = self.down or self.venue.lies.silence
        for _, line in self.venue.frames():
            if not silent:
                self.coming.extend(x for x in distort(self.venue, line).split(b"\n") if x)
        if not silent:
            self.coming.append(wire.encode({"heartbeat": self.venue.sequence}))

    def _serve(self, request: wire.Request) -> None:
        if request.op == "resend":
            journal = self.venue.journal
            last = min(request.last, len(journal))
            self.coming.extend(journal.read(n) for n in range(max(request.first, 1), last + 1))
            self.coming.append(wire.encode({"resent": last}))
            return
        self.answer = None
        if self.venue.lies.silence:
            return
        expired = 0 < request.expires_at < self.clock().timestamp()
        answer = wire.encode(reply(self.venue, request, self.clock(), expired=expired))
        if request.op != "submit" or not self.venue.chance(self.venue.lies.drop_reply):
            self.answer = answer

    # -- the desk's end: what `Connection` offers ------------------------------------------------------------------

    def open(self, after: int | None) -> None:
        """Begin a session of reports behind a number: what was on its way to the last one is lost with it."""
        self.venue.seal()
        self.venue.frames()
        self.coming.clear()
        self.here.clear()
        self.last = self.venue.sequence
        self.coming.extend(self.venue.journal.read(n) for n in range((after or 0) + 1, self.last + 1))

    def write(self, line: bytes, deadline: float) -> None:
        """Hand a request over."""
        self._serve(wire.decode_request(line))

    def read_line(self, deadline: float) -> bytes:
        """Return the answer, or raise when the venue hung up instead."""
        if self.answer is None:
            raise BrokerUnavailable("the broker hung up")
        return self.answer

    def next_line(self) -> bytes | None:
        """Return the next line that has arrived."""
        return self.here.popleft() if self.here else None

    def wait(self, seconds: float) -> bool:
        """Tell whether anything is on the wire, its end too; nothing comes by waiting."""
        return bool(self.coming) or self.down

    def fill(self) -> None:
        """Take in what is on the wire."""
        if self.down:
            raise BrokerUnavailable("the broker is away")
        self.here.extend(self.coming)
        self.coming.clear()

    def is_stale(self) -> bool:
        """A call is never stale."""
        return False

    def close(self) -> None:
        """Nothing is held open."""


class InProcessBroker(SimulatedBroker):
    """The simulated brokers' adapter, over a `Line`; its deadlines are seconds of the line's clock."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.code = settings["code"]
        self.monotonic = self.wall = lambda: self.line.clock().timestamp()

    @property
    def line(self) -> Line:
        """Return the line to the venue as it is open now."""
        return LINES[self.code]

    def _connected(self, deadline: float) -> Any:
        if self.line.down:
            raise BrokerUnavailable("the broker is away", sent=False)
        return self.line

    def stream(self, after: int | None) -> SimulatedStream:
        """See the port."""
        line = self._connected(0)
        if line.venue.lies.silence:
            raise BrokerUnavailable("the broker did not greet", sent=False)
        line.open(after)
        return SimulatedStream(line, after, self.monotonic)


def build(settings: dict[str, Any]) -> InProcessBroker:
    """Return the adapter of the venue that `LINES` has under the settings' `code`."""
    return InProcessBroker(settings)
