"""Database constraints as domain errors, by their names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import IntegrityError

from oms.kernel.errors import DomainError


@contextmanager
def refine(**rules: DomainError | Callable[[], DomainError]) -> Iterator[None]:
    """Raise the domain error given for the constraint that was broken; any other error passes unchanged."""
    try:
        yield
    except IntegrityError as error:
        name = getattr(getattr(error.__cause__, "diag", None), "constraint_name", None)
        rule = rules.get(name or "")
        if rule is None:
            raise
        raise (rule if isinstance(rule, DomainError) else rule()) from error
