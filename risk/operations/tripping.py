"""Automatic halts: which wires are crossed, and that each crossing halts once, until it is over and comes again."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from oms.kernel.decimals import text
from oms.kernel.reasons import Reason
from oms.runtime import sql
from portfolio.models import Account
from risk.domain.limits import LimitRef
from risk.domain.measures import MEASURES
from risk.domain.scopes import Scope
from risk.domain.tripwires import DEFAULTS, Tripped, Wire
from risk.models import Limit, ProfitPeak, Trip, Tripwire
from risk.queries.exposure import gates

LOSSES = ("daily_loss", "drawdown")


def wires() -> dict[str, Wire]:
    """Return every trigger as it is set, or as the house has it; without those that are switched off."""
    own = {w.kind: Wire(w.threshold, w.window, w.mode, w.enabled) for w in Tripwire.objects.all()}
    return {kind: wire for kind, wire in (DEFAULTS | own).items() if wire.enabled}


def losses(*, at: datetime) -> list[Tripped]:
    """Return the accounts beyond a limit on losses, having noted the highest profits seen."""
    begun = Limit.objects.filter(status__in=["active", "approved"], kind__in=LOSSES, soft=False, effective_from__lte=at)
    if not begun.exists():
        return []
    tripped: list[Tripped] = []
    for account, gate, probe in gates(Account.objects.filter(status=Account.Status.OPEN), at):
        limits = gate.limits_for(probe).hard
        total = gate.profit(account.id, account.base_currency).total
        if "drawdown" in limits and total is not None:
            gate.facts.peaks[account.id] = _raise_peak(account.id, total, at)
        for kind in LOSSES:
            own = [x for x in limits.get(kind, ()) if _is_of_the_account(x)]
            check = MEASURES[kind](gate, probe, probe.quantity, own) if own else None
            if check is not None and check.judge() is Reason.LOSS_LIMIT:
                tripped.append(Tripped(kind, Scope("account", account.code), check.explain(Reason.LOSS_LIMIT)))
    return tripped


def _is_of_the_account(limit: LimitRef) -> bool:
    return limit.binds[0] in ("firm", "account")


def _raise_peak(account_id: int, total: Decimal, at: datetime) -> Decimal:
    found = sql.run(
        f"INSERT INTO {ProfitPeak._meta.db_table} AS p (account_id, value, at) VALUES (%(account)s, round(%(value)s, 10), %(at)s) "
        "ON CONFLICT (account_id) DO UPDATE SET value = greatest(p.value, EXCLUDED.value), "
        "at = CASE WHEN EXCLUDED.value > p.value THEN EXCLUDED.at ELSE p.at END RETURNING value",
        {"account": account_id, "value": total, "at": at},
    ).fetchone()
    assert found is not None  # noqa: S101 - what is written is returned
    peak: Decimal = found[0]
    return peak


def clock_drift(wire: Wire, *, at: datetime) -> list[Tripped]:
    """Compare this machine's clock with the database's."""
    row = sql.run("SELECT abs(extract(epoch FROM desk_clock() - %s::timestamptz))", [at]).fetchone()
    assert row is not None  # noqa: S101 - a query of one value has one row
    if row[0] <= wire.threshold:
        return []
    return [
        Tripped(
            "clock_drift", Scope("all"), f"Two clocks differ by {row[0]:.1f} s; {text(wire.threshold)} s are allowed."
        )
    ]


def quotes_stale(wire: Wire, *, at: datetime) -> list[Tripped]:
    """Look whether any price still comes in; a desk that never had one is not watched."""
    row = sql.run("SELECT extract(epoch FROM %s - max(at)) FROM brokers_quote", [at]).fetchone()
    if row is None or row[0] is None or row[0] <= wire.threshold:
        return []
    detail = f"The newest quote is {row[0]:.0f} s old; {text(wire.threshold)} s are allowed."
    return [Tripped("quotes_stale", Scope("all"), detail)]


def newly_crossed(tripped: Sequence[Tripped], *, at: datetime) -> list[Tripped]:
    """Return what is not noted as crossed yet, and note what is crossed no more.

    Whoever asks engages the halts in answer and notes each after it (`note_trip`): a halt may come twice, never not at all.
    """
    now = {(t.kind, t.scope.kind, t.scope.key): t for t in tripped}
    standing = {(t.kind, t.scope_kind, t.scope_key): t.pk for t in Trip.objects.filter(ended_at=None)}
    over = [pk for key, pk in standing.items() if key not in now]
    if over:
        Trip.objects.filter(pk__in=over, ended_at=None).update(ended_at=at)
    return [trip for key, trip in sorted(now.items()) if key not in standing]


def note_trip(trip: Tripped, *, at: datetime) -> bool:
    """Write that a wire is crossed from now on; False if somebody else just did."""
    return bool(
        sql.run(
            "INSERT INTO risk_trip (kind, scope_kind, scope_key, detail, began_at) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (kind, scope_kind, scope_key) WHERE ended_at IS NULL DO NOTHING",
            [trip.kind, trip.scope.kind, trip.scope.key, trip.detail[:200], at],
        ).rowcount
    )
