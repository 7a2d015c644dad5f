"""The naive desk's rows: a state machine saved step by step with its history, a fill, a position, a ledger."""

import warnings

from django.db import models
from simple_history.models import HistoricalRecords

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from django_fsm import FSMField, transition


class Order(models.Model):
    """An order, saved in full with each step."""

    client_order_id = models.CharField(max_length=64, unique=True)
    symbol = models.CharField(max_length=32)
    side = models.CharField(max_length=8)
    quantity = models.DecimalField(max_digits=25, decimal_places=10)
    filled_quantity = models.DecimalField(max_digits=25, decimal_places=10, default=0)
    status = FSMField(default="new")
    created_at = models.DateTimeField(auto_now_add=True)
    history = HistoricalRecords()

    class Meta:
        app_label = "naive"

    @transition(field=status, source="new", target="submitted")
    def submit(self):
        """Send."""

    @transition(field=status, source="submitted", target="accepted")
    def accept(self):
        """Acknowledge."""

    @transition(field=status, source="accepted", target="filled")
    def fill(self):
        """Fill."""


class Fill(models.Model):
    """An execution."""

    order = models.ForeignKey(Order, models.PROTECT)
    quantity = models.DecimalField(max_digits=25, decimal_places=10)
    price = models.DecimalField(max_digits=25, decimal_places=10)

    class Meta:
        app_label = "naive"


class Position(models.Model):
    """A position."""

    symbol = models.CharField(max_length=32, unique=True)
    quantity = models.DecimalField(max_digits=25, decimal_places=10, default=0)

    class Meta:
        app_label = "naive"


class Entry(models.Model):
    """A ledger line."""

    fill = models.ForeignKey(Fill, models.PROTECT)
    code = models.CharField(max_length=16)
    amount = models.DecimalField(max_digits=25, decimal_places=10)

    class Meta:
        app_label = "naive"


class Bare(models.Model):
    """One bare row, for the bare insert."""

    client_order_id = models.CharField(max_length=64, unique=True)
    symbol = models.CharField(max_length=32)
    side = models.CharField(max_length=8)
    quantity = models.DecimalField(max_digits=25, decimal_places=10)

    class Meta:
        app_label = "naive"
