"""Whether the desk serves, asked as a user's browser would."""

import json
import socket
from contextlib import closing
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SECONDS = 2.0


def taken(host: str, port: int) -> str:
    """Why nobody can listen there; empty when one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            return str(getattr(error, "strerror", None) or error)
    return ""


def missing(host: str, port: int, path: str) -> list[str]:
    """What keeps the desk from being ready; empty when it is."""
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
    address = f"[{reachable}]" if ":" in reachable else reachable
    request = Request(f"http://{address}:{port}{path}", headers={"Host": f"localhost:{port}"})
    try:
        with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - our own address
            answer.read()
            return []
    except HTTPError as error:
        return reasons(error.code, error.read(100_000))
    except (OSError, HTTPException):
        return ["web"]


def reasons(status: int, body: bytes) -> list[str]:
    """The names of the checks that say no, from the answer's body."""
    try:
        answer = json.loads(body)
    except ValueError:
        return [f"web answers {status}"]
    checks: Any = answer.get("checks", answer) if isinstance(answer, dict) else {}
    if isinstance(checks, list):
        checks = {str(entry.get("name")): entry for entry in checks if isinstance(entry, dict)}
    bad = [_told(name, state) for name, state in checks.items() if not _good(state)] if isinstance(checks, dict) else []
    return bad or [f"web answers {status}"]


def _good(state: Any) -> bool:
    if isinstance(state, dict):
        state = state.get("ok", state.get("status"))
    return state in (True, "ok", "up", "ready", None)


def _told(name: str, state: Any) -> str:
    detail = state.get("detail") if isinstance(state, dict) else state if isinstance(state, str) else None
    return f"{name} ({detail})" if detail else name
