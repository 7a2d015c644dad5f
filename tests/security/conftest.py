"""The furnished desk of security tests."""

from typing import Any

import pytest

from tests.conftest import Desk
from tests.security.house import House, furnish


@pytest.fixture
def house(desk: Desk, django_user_model: Any) -> House:
    """A desk with something of everything, inside the test's own transaction."""
    return furnish(desk, django_user_model)
