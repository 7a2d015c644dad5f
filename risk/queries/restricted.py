"""What may not be traded."""

from datetime import datetime

from django.db.models import Q

from risk.models import RestrictedInstrument


def restricted_instruments(*, at: datetime) -> set[int]:
    """Return the instruments that nobody may trade at a time; those that are only watched are not among them."""
    rows = RestrictedInstrument.objects.filter(Q(until=None) | Q(until__gt=at), since__lte=at, watched=False)
    return set(rows.values_list("instrument_id", flat=True))
