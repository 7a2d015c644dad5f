"""Whom a limit or a halt binds."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from oms.kernel.errors import Invalid
from risk.domain.intents import Intent

LIMIT_SCOPES = ("firm", "account", "user", "strategy", "broker", "symbol", "group")
HALT_SCOPES = ("all", "account", "broker", "symbol", "strategy", "user")
MEMBER_KINDS = ("account", "user", "strategy", "symbol", "asset_class", "sector")
"""What a group may be made of."""
WHOLE = frozenset({"firm", "all"})
KEY_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True)
class Scope:
    """A kind and the code of the one it names; `firm` and `all` name nobody."""

    kind: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.key}".strip()

    def as_json(self) -> dict[str, object]:
        """Return the scope as the API spells it: `{"account": "MAIN"}`, `{"all": true}`."""
        return {self.kind: True if self.kind in WHOLE else self.key}


def parse_scope(raw: object, kinds: tuple[str, ...]) -> Scope:
    """Return the scope that a JSON object with one key spells, or raise `Invalid`."""
    if not isinstance(raw, Mapping) or len(raw) != 1:
        raise Invalid("not_a_scope", f"Name one of: {', '.join(kinds)}.", field="scope")
    kind, key = next(iter(raw.items()))
    if kind not in kinds:
        raise Invalid("not_a_scope", f"Name one of: {', '.join(kinds)}.", field="scope")
    if kind in WHOLE:
        if key is not True:
            raise Invalid("not_a_scope", f'Write {{"{kind}": true}}.', field="scope")
        return Scope(kind)
    if not isinstance(key, str) or not 0 < len(key) <= KEY_LENGTH_MAX:
        raise Invalid("not_a_scope", f"Name the {kind}.", field="scope")
    return Scope(kind, key)


def parse_scope_text(text: str, kinds: tuple[str, ...]) -> Scope:
    """Return the scope of a command line: `all`, `account:MAIN`."""
    kind, colon, key = text.partition(":")
    return parse_scope({kind: key if colon else True}, kinds)


def scopes_of(intent: Intent) -> frozenset[tuple[str, str]]:
    """Return every (kind, key) that binds an order, asset class and sector as members of groups. A broker binds here only an order directed to it:
    for the others the broker is not chosen yet, and the claim's own SQL looks again."""
    return _scopes(
        intent.account_code,
        intent.user_name,
        intent.strategy_code,
        intent.instrument.symbol,
        intent.directed_broker_code or "",
        intent.instrument.asset_class,
        intent.instrument.sector,
    )


@lru_cache(4096)
def _scopes(
    account: str, user: str, strategy: str, symbol: str, broker: str, asset_class: str, sector: str
) -> frozenset[tuple[str, str]]:
    named = {
        ("account", account), ("user", user), ("strategy", strategy), ("symbol", symbol), ("broker", broker),
        ("asset_class", asset_class), ("sector", sector),
    }  # fmt: skip
    return frozenset({("firm", ""), ("all", ""), *((kind, key) for kind, key in named if key)})
