"""The naive desk's tasks: one to send, one to fill, each step a save."""

from decimal import Decimal

from celery import shared_task
from django.db import transaction

from tests.benchmarks.naive.models import Entry, Fill, Order, Position


@shared_task
def submit(order_id):
    """Send an order."""
    order = Order.objects.get(pk=order_id)
    order.submit()
    order.save()
    order.accept()
    order.save()
    book.delay(order_id)


@shared_task
@transaction.atomic
def book(order_id):
    """Fill an order and book it."""
    order = Order.objects.select_for_update().get(pk=order_id)
    fill = Fill.objects.create(order=order, quantity=order.quantity, price=Decimal(100))
    order.filled_quantity = order.quantity
    order.fill()
    order.save()
    position, _ = Position.objects.select_for_update().get_or_create(symbol=order.symbol)
    position.quantity += order.quantity
    position.save()
    for code, sign in (("cash", -1), ("securities", 1), ("fees", 1), ("cash", -1)):
        Entry.objects.create(fill=fill, code=code, amount=sign * order.quantity * 100)
