"""The one door to django-fsm: protected state fields that survive `refresh_from_db` and `full_clean`."""

from __future__ import annotations

import warnings
from typing import Any

from django.db import models

with warnings.catch_warnings():
    # The package announces its successor at import; the dependency is a decision of this project.
    warnings.filterwarnings("ignore", message="The 'django-fsm' package has been integrated", category=UserWarning)
    from django_fsm import (
        ConcurrentTransition,
        FSMField,
        FSMFieldMixin,
        TransitionNotAllowed,
        can_proceed,
        transition,
    )

__all__ = [
    "ConcurrentTransition",
    "FSMField",
    "StateMachineModel",
    "TransitionNotAllowed",
    "can_proceed",
    "transition",
]


class StateMachineModel(models.Model):
    """A model whose protected state fields change by transition only.

    Saving is left to operations: they write state and version of a whole batch with one UPDATE that
    matches the version read, so no row-wise concurrency mixin is needed.
    """

    class Meta:
        abstract = True

    @classmethod
    def _protected_fields(cls) -> list[models.Field[Any, Any]]:
        return [f for f in cls._meta.concrete_fields if isinstance(f, FSMFieldMixin) and f.protected]

    def refresh_from_db(self, using: Any = None, fields: Any = None, **kwargs: Any) -> None:
        """Reload like any model; the state descriptor refuses a second assignment, so the old value goes first."""
        names = [f.attname for f in self._protected_fields()]
        wanted = names if fields is None else [n for n in names if n in fields]
        kept = {n: self.__dict__.pop(n) for n in wanted if n in self.__dict__}
        if fields is None:
            fields = [f.attname for f in self._meta.concrete_fields]
        try:
            super().refresh_from_db(using=using, fields=fields, **kwargs)
        except BaseException:
            self.__dict__.update(kept)
            raise

    def clean_fields(self, exclude: Any = None) -> None:
        """Leave the protected state out: assigning the cleaned value is what protection forbids."""
        super().clean_fields(exclude={*(exclude or ()), *(f.name for f in self._protected_fields())})
