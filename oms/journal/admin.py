"""The audit trail, to read."""

from django.contrib import admin

from oms.journal.models import Event, Stream
from oms.runtime.facts import Facts


@admin.register(Event)
class EventAdmin(Facts):
    """Events, newest first."""

    list_display = ["stream", "sequence", "at", "actor", "kind", "object_id"]
    list_filter = ["stream"]
    search_fields = ["object_id", "actor", "kind"]
    ordering = ["-at"]


@admin.register(Stream)
class StreamAdmin(Facts):
    """Chains and their heads."""

    list_display = ["name", "sequence"]
