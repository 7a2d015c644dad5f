"""What travels: strict JSON in, exact JSON and tables out."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import msgspec
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from oms.kernel import decimals, json
from oms.kernel.errors import DomainError, Invalid
from oms.runtime.bodies import BODY_BYTES_MAX

DEPTH_MAX = 20


class BodyTooLarge(DomainError):
    """The request body is above the bound."""

    kind = "too_large"


def decode(raw: bytes) -> Any:
    """Return the value of a JSON text, or raise `Invalid` for one that is malformed, too deep, or holds a float or a NUL.

    An amount never comes as a JSON number with a fraction: what a float loses can't be won back.
    """
    if len(raw) > BODY_BYTES_MAX:
        raise BodyTooLarge("body_too_large", f"Send at most {BODY_BYTES_MAX} bytes.")
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("malformed_json", f"The body is not JSON: {error}") from None
    except RecursionError:
        raise Invalid("too_deep", f"Nest at most {DEPTH_MAX} levels.") from None
    _inspect(value, "", 0)
    return value


def _inspect(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if "\0" in value:
            raise Invalid("control_character", "A NUL character can't be kept.", field=path)
    elif kind is float:
        raise Invalid("float_refused", 'Send decimals as JSON strings, for example "10.5".', field=path)
    elif kind is dict or kind is list:
        if depth >= DEPTH_MAX:
            raise Invalid("too_deep", f"Nest at most {DEPTH_MAX} levels.")
        items = value.items() if kind is dict else enumerate(value)
        for key, item in items:
            inner = type(item)
            if inner is float or inner is dict or inner is list or (inner is str and "\0" in item):
                _inspect(item, f"{path}.{key}" if path else str(key), depth + 1)
            if kind is dict and "\0" in key:
                raise Invalid("control_character", "A NUL character can't be kept.", field=path)


class Parser(BaseParser):
    """JSON of at most 1 MB, read no further than that."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return the decoded body; an empty one counts as an empty object."""
        raw = stream.read(BODY_BYTES_MAX + 1)
        return decode(raw) if raw.strip() else {}


class Renderer(BaseRenderer):
    """Compact JSON with decimals as strings."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the JSON text; a response without a body stays empty."""
        return b"" if data is None else json.dump_bytes(data)


class CsvRenderer(BaseRenderer):
    """The rows of a list as a table, for spreadsheets."""

    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> str:
        """Write one line a row; nested values become JSON, and text that a spreadsheet would run is quoted."""
        rows = data.get("results", [data]) if isinstance(data, dict) else data
        if not rows:
            return ""
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), extrasaction="ignore", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
        return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value[:1] and not _is_number(value):
        return "'" + value
    return value


def _is_number(value: str) -> bool:
    try:
        decimals.parse(value)
    except DomainError:
        return False
    return True
