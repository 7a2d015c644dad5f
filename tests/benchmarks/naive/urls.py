"""The naive desk's two addresses."""

from django.urls import path
from rest_framework import generics, serializers

from tests.benchmarks.naive.models import Bare, Order
from tests.benchmarks.naive.tasks import submit


class OrderSerializer(serializers.ModelSerializer):
    """An order in."""

    class Meta:
        model = Order
        fields = ["id", "client_order_id", "symbol", "side", "quantity", "status"]
        read_only_fields = ["status"]


class BareSerializer(serializers.ModelSerializer):
    """A bare row in."""

    class Meta:
        model = Bare
        fields = ["id", "client_order_id", "symbol", "side", "quantity"]


class Orders(generics.CreateAPIView):
    """Create an order and queue a task for it."""

    queryset = Order.objects.all()
    serializer_class = OrderSerializer

    def perform_create(self, serializer):
        """Save, then one task an order."""
        submit.delay(serializer.save().pk)


class Bares(generics.CreateAPIView):
    """Create a bare row."""

    queryset = Bare.objects.all()
    serializer_class = BareSerializer


urlpatterns = [path("orders/", Orders.as_view()), path("bare/", Bares.as_view())]
