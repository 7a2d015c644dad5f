"""Kinds of transactions, and the whole-transaction retry that lock conflicts ask for."""

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import psycopg.errors
import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from oms.runtime import crash

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")

ATTEMPTS_MAX = 8
BACKOFF_SECONDS = 0.01
_RETRYABLE = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
)
log = structlog.get_logger(__name__)


def in_transaction(operation: Callable[P, R]) -> Callable[P, R]:
    """Run the operation in a transaction of its own, all of it again on deadlock, serialisation failure or lock timeout.

    The operation must have no effect outside of the database: what should happen after the commit is
    left to `after_commit`. It may not be called inside another transaction (a test case's own is no other).
    """

    @functools.wraps(operation)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with transaction.atomic(durable=True):
                    done = operation(*args, **kwargs)
                    crash.point("before_commit")
                crash.point("after_commit")
                return done
            except DatabaseError as error:
                if attempt == ATTEMPTS_MAX or not is_conflict(error):
                    raise
                time.sleep(random.uniform(0, BACKOFF_SECONDS * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    return run


def each(keys: Iterable[K], act: Callable[[K], object]) -> int:
    """Act on each, in transactions of their own; return how many. What fails stops none of the others: it is logged, and the
    first of it raised once all had their turn. A lost database ends it at once."""
    count, trouble = 0, None
    for key in keys:
        count += 1
        try:
            act(key)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.exception("one_of_many_failed", key=str(key))
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return count


def is_conflict(error: DatabaseError) -> bool:
    """Tell whether a transaction failed only because of another one, so that all of it may be run again."""
    return isinstance(error.__cause__, _RETRYABLE)


@contextmanager
def transaction_scope() -> Iterator[None]:
    """Open an outermost transaction without the retry, for code that handles conflicts itself."""
    with transaction.atomic(durable=True):
        yield


def require_transaction() -> None:
    """Raise unless the caller already holds a transaction: row locks mean nothing without one."""
    if not connection.in_atomic_block:
        raise RuntimeError("this must run inside a transaction")


def after_commit(effect: Callable[[], None]) -> None:
    """Run the effect once the transaction stands; a failing effect is logged and never undoes the commit."""
    transaction.on_commit(effect, robust=True)
