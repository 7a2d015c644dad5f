"""FIX messages as bytes: framed and checked here, their fields read and written by `simplefix`.

The codec checks neither length nor checksum, so a frame is judged before it is read; what fails is garbled, and by the
standard as if it had never come.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import simplefix
from simplefix import errors

SOH = b"\x01"
BEGIN = b"8=FIX"
HEAD_MAX = 64
"""Within so many bytes stand 8= and 9=."""
BODY_MAX = 1 << 20
SECRET_TAGS = frozenset({96, 554, 925})
"""RawData, Password and NewPassword: kept nowhere."""
NUL = b"\x00"

Fields = Sequence[tuple[int, object]]


class Garbled(ValueError):
    """Bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came: its bytes, and all its fields in their order, known or not."""

    raw: bytes
    fields: tuple[tuple[int, str], ...]

    def get(self, tag: int) -> str | None:
        """Return the first value of a tag."""
        return next((v for t, v in self.fields if t == tag), None)

    def text(self, tag: int) -> str:
        """Return the first value of a tag, empty without one."""
        return self.get(tag) or ""

    def number(self, tag: int) -> int | None:
        """Return the first value of a tag as a whole number from 0 on, None where it is none."""
        value = self.get(tag)
        return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 10 else None

    def flag(self, tag: int) -> bool:
        """Tell whether a tag says yes."""
        return self.get(tag) == "Y"

    @property
    def kind(self) -> str:
        """MsgType."""
        return self.text(35)

    @property
    def sequence(self) -> int | None:
        """MsgSeqNum."""
        return self.number(34)


def encode(begin_string: str, kind: str, header: Fields, body: Fields) -> bytes:
    """Return a message as it travels, with its length and checksum; a field without a value is left out."""
    message = simplefix.FixMessage()
    message.append_pair(8, begin_string)
    message.append_pair(35, kind)
    for tag, value in (*header, *body):
        if isinstance(value, bool):
            value = "Y" if value else "N"
        message.append_pair(tag, value)
    encoded: bytes = message.encode()
    return encoded


class Reader:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take bytes in."""
        self.buffer += chunk

    def frames(self) -> Iterator[Message | tuple[bytes, str]]:
        """Yield each message that is complete, or what is garbled with the reason; the rest waits for more."""
        while self.buffer:
            start = self.buffer.find(BEGIN)
            if start != 0:
                cut = start if start > 0 else max(len(self.buffer) - len(BEGIN) + 1, 0)
                if start < 0 and BEGIN.startswith(bytes(self.buffer[cut:])) and cut == 0:
                    return
                if cut:
                    yield self._drop(cut), "bytes between messages"
                    continue
                if start < 0:
                    yield self._drop(len(self.buffer)), "bytes between messages"
                    continue
            try:
                end = self._end()
            except Garbled as error:
                following = self.buffer.find(SOH + BEGIN, 1)
                if following < 0 and len(self.buffer) < HEAD_MAX:
                    return
                yield self._drop(following + 1 if following >= 0 else len(self.buffer)), str(error)
                continue
            if end is None:
                return
            raw = bytes(self.buffer[:end])
            try:
                message = parse(raw)
            except Garbled as error:
                following = raw.find(BEGIN, 1)  # it was cut off, and the next one stands where its rest should
                yield self._drop(following if following >= 0 else end), str(error)
                continue
            del self.buffer[:end]
            yield message

    def _drop(self, count: int) -> bytes:
        dropped = bytes(self.buffer[:count])
        del self.buffer[:count]
        return dropped

    def _end(self) -> int | None:
        """Return where the first message ends by its own word, None while it has not arrived."""
        first = self.buffer.find(SOH, 0, HEAD_MAX)
        second = self.buffer.find(SOH, first + 1, HEAD_MAX) if first >= 0 else -1
        if second < 0:
            if len(self.buffer) >= HEAD_MAX:
                raise Garbled("no BeginString and BodyLength at its head")
            return None
        length = bytes(self.buffer[first + 1 : second])
        if not length.startswith(b"9=") or not length[2:].isdigit() or int(length[2:]) > BODY_MAX:
            raise Garbled("no BodyLength behind its BeginString")
        end = second + 1 + int(length[2:]) + len(b"10=000") + 1
        if len(self.buffer) < end:
            # a length that reaches past the next message is a wrong one: nothing may be swallowed for it
            trailer = self.buffer.find(SOH + b"10=", second)
            if trailer >= 0 and SOH + BEGIN in self.buffer[trailer + 1 :]:
                raise Garbled("its BodyLength is wrong")
            return None
        return end


def parse(raw: bytes) -> Message:
    """Return the message that bytes are; raises `Garbled`."""
    trailer = raw[-7:]
    if not (trailer.startswith(b"10=") and trailer.endswith(SOH) and trailer[3:6].isdigit() and raw[-8:-7] == SOH):
        raise Garbled("its BodyLength is wrong")
    if sum(raw[:-7]) % 256 != int(trailer[3:6]):
        raise Garbled("its CheckSum is wrong")
    if NUL in raw:
        raise Garbled("a NUL character")
    parser = simplefix.FixParser(allow_empty_values=True)
    parser.append_buffer(raw)
    try:
        found = parser.get_message()
    except (errors.ParsingError, ValueError) as error:
        raise Garbled(f"its fields can't be read: {error}") from error
    if found is None or len(found.pairs) < 4 or int(found.pairs[2][0]) != 35:
        raise Garbled("its MsgType is not the third field")
    return Message(raw, tuple((int(t), v.decode("utf-8", "replace")) for t, v in found.pairs))


def masked(raw: bytes) -> bytes:
    """Return a message without what is secret in it, for whoever keeps it."""
    pairs = raw.split(SOH)
    return SOH.join(p[: p.find(b"=") + 1] + b"***" if _tag(p) in SECRET_TAGS else p for p in pairs)


def _tag(pair: bytes) -> int:
    tag = pair[: max(pair.find(b"="), 0)]
    return int(tag) if tag.isdigit() else 0


def written(at: datetime) -> str:
    """Return a time as UTCTimestamp with milliseconds."""
    return at.astimezone(UTC).strftime("%Y%m%d-%H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def read_time(value: str | None, sequence: int = 0) -> datetime | None:
    """Return a UTCTimestamp, None where it is none.

    Digits that it does not tell keep the order in which the session told: of two events of one second or millisecond the
    later one is later.

    >>> read_time("20261125-10:00:00.5", 3).isoformat()
    '2026-11-25T10:00:00.500003+00:00'
    """
    whole, _, fraction = (value or "").partition(".")
    digits = fraction[:6]
    if not whole.isascii() or (fraction and not fraction.isdigit()):
        return None
    try:
        at = datetime.strptime(whole, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    untold = 10 ** (6 - len(digits)) if len(digits) < 6 else 1
    return at + timedelta(microseconds=int(digits.ljust(6, "0") or 0) + sequence % untold)


def pairs_of(extra: Iterable[tuple[str, str]]) -> list[tuple[int, object]]:
    """Return fields of settings, by their tags."""
    return [(int(tag), value) for tag, value in extra]
