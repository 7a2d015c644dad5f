"""What a simulation makes fail, and how often."""

FAULTS = {
    "drop_reply": 0.10, "error_though_accepted": 0.05, "hide_orders": 0.05, "duplicate_reports": 0.10,
    "reorder_reports": 0.10, "gap": 0.05, "corrupt": 0.02, "garbage": 0.02, "late_fill_after_cancel": 0.20, "bust": 0.02,
    "overfill": 0.01, "correct": 0.10, "unsolicited": 0.05, "empty_lists": 0.05, "outage": 0.03, "silence": 0.02, "halt": 0.03,
    "kill": 0.05, "freeze": 0.03, "reconcile": 0.10,
}  # fmt: skip
"""Each fault with its rate where none is given: lies by answer, report or order; what brokers and officers do by the step of
the clock, what happens to processes by the step of each."""
LIES = frozenset(list(FAULTS)[:11])
"""Those that a venue tells by itself, see `brokers.simulation.knobs.Lies`."""
OUTAGE_SECONDS = (1.0, 25.0)
FREEZE_SECONDS = (1.0, 40.0)
"""A frozen process sleeps past its lease and past the proof of absence now and then."""
_COMMITS = ("before_commit", "after_commit")
POINTS = {
    "Sender": (*_COMMITS, "after_claim", "after_send", "after_record"),
    "Gateway": (*_COMMITS, "after_raw", "after_apply"),
    "Resolver": (*_COMMITS, "after_look_up"),
    "Pricer": _COMMITS,
    "Sweeper": _COMMITS,
    "Reconciler": _COMMITS,
    "Worker": (*_COMMITS, "after_slice_claim", "after_slice_release"),
}
"""Where processes of each kind may die."""


def parse_faults(text: str) -> dict[str, float]:
    """Return rates by fault out of `none`, `all`, or a list like `bust,gap=0.2`; `ValueError` for anything else."""
    if text in ("", "none"):
        return {}
    if text == "all":
        return dict(FAULTS)
    rates = {}
    for word in text.split(","):
        name, given, rate = word.partition("=")
        if name not in FAULTS:
            raise ValueError(f"no fault {name!r}; known: {', '.join(FAULTS)}")
        rates[name] = float(rate) if given else FAULTS[name]
        if not 0 <= rates[name] <= 1:
            raise ValueError(f"{name}: a rate lies between 0 and 1")
    return rates
