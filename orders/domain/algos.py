"""How a large order is to be worked: the algorithm asked for, with every policy named, and what stands where none was given.

`catch_up` says what becomes of quantity that an earlier slice did not place (denied, refused, guarded by the limit, missed
while the desk was down or the order paused): `spread` it evenly over the slices left, take it all `at_once` with the next,
or `never`, so that only the end decides. `at_end` says what becomes of what is left when the time runs out: `cancel` it, or
`complete`, by asking for all of it at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from oms.kernel import decimals, json
from oms.kernel.errors import Invalid, InvalidFields

NAMES = ("twap", "vwap", "pov", "is", "iceberg")
SCHEDULED = frozenset({"twap", "vwap", "is"})
"""These know their slices from the start; the others find the next one as the market and the last one go."""
CATCH_UPS = ("spread", "at_once", "never")
AT_ENDS = ("cancel", "complete")
URGENCIES = {"low": Decimal("0.2"), "medium": Decimal("0.5"), "high": Decimal("0.8")}
TIMES_IN_FORCE = frozenset({"day", "gtc", "gtd"})
SLICES_MAX = 500
SLICES_DEFAULT_MAX = 60
SLICE_SECONDS = 60.0
"""Where nothing says how many slices, one a minute."""
SLICE_SECONDS_MIN = 1.0
HORIZON = timedelta(hours=1)
"""How long an order is worked where no end is given, or until the session closes if that is sooner."""
HORIZON_MAX = timedelta(days=30)
PARTICIPATION = Decimal("0.1")
URGENCY = URGENCIES["medium"]
VARY = Decimal("0.2")
VARY_MAX = Decimal("0.5")
SEED_BELOW = 2**53
_ALL = frozenset({"name", "start_at", "end_at", "at_end", "seed", "catch_up"})
_SCHEDULED = _ALL | {"slices", "participation", "vary_size", "vary_time"}
_TAKES = {
    "twap": _SCHEDULED,
    "vwap": _SCHEDULED,
    "is": _SCHEDULED | {"urgency"},
    "pov": (_ALL - {"catch_up"}) | {"participation", "vary_time"},
    "iceberg": (_ALL - {"catch_up"}) | {"slices", "vary_size"},
}


@dataclass(frozen=True, slots=True)
class AlgoTerms:
    """An algorithm with its parameters; None where nothing was asked for, or where it has none.

    `participation` is the share of the market's volume that may be ours: the aim of pov, a ceiling of the others.
    `urgency` from 0 (evenly) to 1 (at the front). `vary_size` and `vary_time` are the shares of a slice's quantity and of
    its interval that chance, drawn from the `seed`, may move it by.
    """

    name: str
    start_at: datetime | None = None
    end_at: datetime | None = None
    participation: Decimal | None = None
    slices: int | None = None
    urgency: Decimal | None = None
    seed: int | None = None
    catch_up: str | None = None
    at_end: str | None = None
    vary_size: Decimal | None = None
    vary_time: Decimal | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what is set, as it is stored, hashed and shown."""
        told = {f.name: _spelled(getattr(self, f.name)) for f in fields(self)}
        return {name: value for name, value in told.items() if value is not None}


def _spelled(value: Any) -> Any:
    if isinstance(value, Decimal):
        return decimals.text(value)
    return json.rfc3339(value) if isinstance(value, datetime) else value


def read_algo(stored: Mapping[str, Any]) -> AlgoTerms:
    """Return the terms that `as_json` spelled."""
    numbers = ("participation", "urgency", "vary_size", "vary_time")
    times = ("start_at", "end_at")
    known = {f.name for f in fields(AlgoTerms)}
    found: dict[str, Any] = {
        name: Decimal(value) if name in numbers else datetime.fromisoformat(value) if name in times else value
        for name, value in stored.items()
        if name in known
    }
    return AlgoTerms(**found)


def settled(asked: AlgoTerms, *, order_type: str, seed: int, at: datetime, closes_at: datetime | None) -> AlgoTerms:
    """Return the terms with every default in its place.

    `closes_at` is when the order's day ends, None where it does not; an order at the market is completed at its end, as there
    is no price that it would refuse, unless a share of the volume is its aim.
    """
    start = max(asked.start_at or at, at)
    end = asked.end_at
    if end is None and asked.name in SCHEDULED:
        end = min(start + HORIZON, closes_at) if closes_at else start + HORIZON
    takes = _TAKES[asked.name]

    def given(name: str, default: Any) -> Any:
        value = getattr(asked, name)
        return value if value is not None else default if name in takes else None

    return AlgoTerms(
        name=asked.name,
        start_at=start,
        end_at=end,
        participation=given("participation", PARTICIPATION if asked.name == "pov" else None),
        slices=asked.slices or (_slices(start, end) if asked.name in SCHEDULED and end else None),
        urgency=given("urgency", URGENCY),
        seed=seed if asked.seed is None else asked.seed,
        catch_up=given("catch_up", "spread"),
        at_end=given("at_end", "complete" if order_type == "market" and asked.name in SCHEDULED else "cancel"),
        vary_size=given("vary_size", VARY),
        vary_time=given("vary_time", VARY),
    )


def _slices(start: datetime, end: datetime) -> int:
    return min(max(round((end - start).total_seconds() / SLICE_SECONDS), 2), SLICES_DEFAULT_MAX)


def faults_of(terms: AlgoTerms, *, closes_at: datetime | None) -> list[Invalid]:
    """Return what is wrong with settled terms: times that leave no room, or that the order does not live to see."""
    assert terms.start_at is not None  # noqa: S101 - settled terms have one
    end, faults = terms.end_at, []
    if closes_at is not None and terms.start_at >= closes_at:
        faults.append(_invalid("out_of_range", f"The order's day ends at {json.rfc3339(closes_at)}.", "start_at"))
    elif closes_at is not None and end is not None and end > closes_at:
        detail = f"The order's day ends at {json.rfc3339(closes_at)}; end before it, or make it gtc or gtd."
        faults.append(_invalid("out_of_range", detail, "end_at"))
    if not faults and end is not None and terms.slices and terms.name in SCHEDULED:
        seconds = (end - terms.start_at).total_seconds() / terms.slices
        if seconds < SLICE_SECONDS_MIN:
            detail = f"Leave at least {SLICE_SECONDS_MIN:g} s for each slice."
            faults.append(_invalid("out_of_range", detail, "slices"))
    return faults


def parse_algo(raw: object, *, order_type: str, time_in_force: str, at: datetime) -> AlgoTerms:
    """Return the algorithm that a JSON object spells, or raise `InvalidFields` with every fault at once."""
    if not isinstance(raw, Mapping):
        raise InvalidFields([Invalid("not_an_object", 'Send an object, for example {"name": "twap"}.', field="algo")])
    reader = _Reader(raw)
    name = raw.get("name")
    if not isinstance(name, str) or name not in NAMES:
        raise InvalidFields([_invalid("not_a_choice", f"Use one of: {', '.join(NAMES)}.", "name")])
    reader.refuse_others(name)
    if order_type not in ("market", "limit"):
        reader.fault("not_allowed", "Market and limit orders are worked; others wait for their price whole.", "name")
    elif name == "iceberg" and order_type != "limit":
        reader.fault("not_allowed", "An iceberg stands in the market, so it needs a limit price.", "name")
    if time_in_force not in TIMES_IN_FORCE:
        reader.fault("not_allowed", "A worked order is good for the day, till canceled or till a date.", "name")
    terms = AlgoTerms(
        name=name,
        start_at=reader.time("start_at", at),
        end_at=reader.time("end_at", at),
        participation=reader.share("participation", most=Decimal(1), positive=True),
        slices=reader.whole("slices", 1, SLICES_MAX),
        urgency=reader.urgency(),
        seed=reader.whole("seed", 0, SEED_BELOW - 1),
        catch_up=reader.choice("catch_up", CATCH_UPS),
        at_end=reader.choice("at_end", AT_ENDS),
        vary_size=reader.share("vary_size", most=VARY_MAX),
        vary_time=reader.share("vary_time", most=VARY_MAX),
    )
    if terms.end_at is not None and not (terms.start_at or at) < terms.end_at:
        reader.fault("out_of_range", "The end must lie after the start, and in the future.", "end_at")
    elif terms.end_at is not None and terms.end_at > (terms.start_at or at) + HORIZON_MAX:
        reader.fault("out_of_range", f"An order is worked for at most {HORIZON_MAX.days} days.", "end_at")
    if reader.errors:
        raise InvalidFields(reader.errors)
    return terms


def _invalid(code: str, detail: str, name: str) -> Invalid:
    return Invalid(code, detail, field=f"algo.{name}")


class _Reader:
    """Reads the parameters and collects what is wrong with them."""

    def __init__(self, raw: Mapping[Any, Any]) -> None:
        self.raw = raw
        self.errors: list[Invalid] = []

    def fault(self, code: str, detail: str, name: str) -> None:
        self.errors.append(_invalid(code, detail, name))

    def refuse_others(self, name: str) -> None:
        """Refuse parameters that nobody knows, or that this algorithm has none of."""
        known = {f.name for f in fields(AlgoTerms)}
        for given in self.raw:
            if given not in known:
                self.fault("unknown_field", "There is no such field.", str(given)[:64])
            elif given not in _TAKES[name] and self.raw[given] is not None:
                self.fault("not_allowed", f"{name} has none.", given)

    def time(self, name: str, at: datetime) -> datetime | None:
        value = self.raw.get(name)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fault("not_a_time", "Use RFC 3339 with a zone, for example 2026-11-23T10:00:00Z.", name)
            return None
        if moment > at + HORIZON_MAX * 2:
            self.fault("out_of_range", "That is too far away.", name)
            return None
        return moment.astimezone(UTC)

    def share(self, name: str, *, most: Decimal, positive: bool = False) -> Decimal | None:
        if self.raw.get(name) is None:
            return None
        try:
            value = decimals.parse(self.raw[name], field=f"algo.{name}")
        except Invalid as error:
            self.errors.append(error)
            return None
        if value < 0 or (positive and value == 0) or value > most:
            least = "above 0" if positive else "from 0"
            self.fault("out_of_range", f"Send a fraction {least} to {decimals.text(most)}.", name)
            return None
        return value

    def urgency(self) -> Decimal | None:
        given = self.raw.get("urgency")
        return URGENCIES[given] if given in tuple(URGENCIES) else self.share("urgency", most=Decimal(1))

    def whole(self, name: str, least: int, most: int) -> int | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault("not_an_integer", "Send a whole number.", name)
        elif not least <= value <= most:
            self.fault("out_of_range", f"Send a number from {least} to {most}.", name)
        else:
            return value
        return None

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        value = self.raw.get(name)
        if value is None or (isinstance(value, str) and value in allowed):
            return value
        self.fault("not_a_choice", f"Use one of: {', '.join(allowed)}.", name)
        return None
