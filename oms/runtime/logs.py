"""Structured logs: one line an event, a correlation id in each, no secrets and no line breaks from outside."""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

SECRET_NAMES = re.compile(
    r"passw|passphrase|secret|token|authorization|cookie|session_?id|api_?key|private|credential|^key$", re.IGNORECASE
)
TEXT_MAX = 2_000
TRACE_MAX = 20_000
DEPTH_MAX = 6
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_IN_URL = re.compile(r"(://[^/\s:@'\"]*:)[^/\s@'\"]+(?=@)")
_IN_HEADER = re.compile(r"\b((?:token|bearer|basic)\s+)[A-Za-z0-9+/=_.~-]{16,}", re.IGNORECASE)
_IN_PAIR = re.compile(
    r"(\b\w*(?:passw|secret|token|api_?key|credential|sessionid)\w*['\"]?\s*[=:]\s*['\"]?)[^\s'\",;})]+", re.IGNORECASE
)
"""Secrets by their surroundings: in a URL, behind the name of a scheme, behind a name that says so."""

_known: tuple[str, ...] = ()


def redact(text: str) -> str:
    """Return a text without the secrets that are known, nor those that their surroundings give away."""
    for secret in _known:
        text = text.replace(secret, "[redacted]")
    for held in (_IN_URL, _IN_HEADER, _IN_PAIR):
        text = held.sub(r"\1[redacted]", text)
    return text


def _clean(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    for key, value in event.items():
        event[key] = redact(str(value))[:TRACE_MAX] if key == "exception" else _cleaned(key, value, 0)
    return event


def _cleaned(key: str, value: Any, depth: int) -> Any:
    if SECRET_NAMES.search(key):
        return "[redacted]"
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < DEPTH_MAX and isinstance(value, Mapping):
        return {str(k): _cleaned(str(k), v, depth + 1) for k, v in value.items()}
    if depth < DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
        return [_cleaned("", v, depth + 1) for v in value]
    text = redact(str(value)[: 2 * TEXT_MAX])
    return _CONTROL.sub(lambda m: f"\\x{ord(m.group()):02x}", text)[:TEXT_MAX]


def configure(*, json_lines: bool, secrets: Iterable[str] = ()) -> None:
    """Send structlog and the standard library's logs to standard error in one form.

    `secrets` are values that no line may hold, wherever they turn up: in an error of a driver, in a trace.
    """
    global _known
    _known = tuple(sorted({s for s in secrets if len(s) >= 6}, key=len, reverse=True))
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    renderer = structlog.processors.JSONRenderer() if json_lines else console
    last: list[Any] = [structlog.processors.format_exc_info, _clean, renderer]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
