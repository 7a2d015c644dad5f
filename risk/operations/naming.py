"""Whether the one a scope names exists."""

from django.contrib.auth import get_user_model
from django.db.models import Model

from brokers.models import Broker, Instrument
from oms.kernel.errors import Invalid
from portfolio.models import Account, Strategy
from risk.domain.scopes import WHOLE, Scope
from risk.models import Group


def require_known(scope: Scope) -> None:
    """Raise `Invalid` unless the scope names an account, user, strategy, broker, symbol or group that exists."""
    if scope.kind in WHOLE:
        return
    model, field = _models()[scope.kind]
    if not model._default_manager.filter(**{field: scope.key}).exists():
        raise Invalid(f"unknown_{scope.kind}", f"There is no such {scope.kind}.", field="scope")


def _models() -> dict[str, tuple[type[Model], str]]:
    return {
        "account": (Account, "code"),
        "broker": (Broker, "code"),
        "group": (Group, "code"),
        "strategy": (Strategy, "code"),
        "symbol": (Instrument, "symbol"),
        "user": (get_user_model(), "username"),
    }
