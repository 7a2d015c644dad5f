"""What happened, in order, in a chain that shows any later change."""

from django.db import models


class Stream(models.Model):
    """One chain of events: an account, a broker or the system. The row is the chain's head and its lock."""

    name = models.CharField(max_length=64, unique=True)  # account:MAIN, broker:PRIME, system
    sequence = models.BigIntegerField(default=0)
    head = models.BinaryField(max_length=32, default=bytes(32))

    def __str__(self) -> str:
        return self.name


class Event(models.Model):
    """One fact. `body` is the JSON text that was hashed; it is never parsed and written again.

    `frame` names the kind of live frame this event is (order, execution, position, risk, halt), empty
    for streams that no screen follows. `transitions` in the body carries the status pairs of an order.
    """

    id = models.UUIDField(primary_key=True)
    stream = models.ForeignKey(Stream, models.PROTECT, db_index=False)
    sequence = models.BigIntegerField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=80)
    kind = models.CharField(max_length=48)
    object_id = models.CharField(max_length=64)
    frame = models.CharField(max_length=12, blank=True)
    body = models.TextField()
    previous_hash = models.BinaryField(max_length=32)
    hash = models.BinaryField(max_length=32)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["stream", "sequence"], name="event_sequence_unique")]
        indexes = [
            models.Index(fields=["object_id"], name="event_object"),
            models.Index(fields=["at"], name="event_at"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id}"
