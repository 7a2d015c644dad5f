"""Errors a caller can act on: a stable code, a sentence that says what to do, and the field if one is to blame."""


class DomainError(Exception):
    """Something the caller asked for can't be done; nothing was changed."""

    kind = "invalid"

    def __init__(self, code: str, detail: str, *, field: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field


class Invalid(DomainError):
    """The input breaks a rule that stands whatever the state of the desk."""


class InvalidFields(DomainError):
    """Several fields of one input are wrong; each is told."""

    def __init__(self, errors: list[Invalid]) -> None:
        super().__init__("invalid", "Correct the fields named.")
        self.errors = errors


class NotFound(DomainError):
    """No such object, or none that the caller may see: the two look the same."""

    kind = "not_found"


class Forbidden(DomainError):
    """The caller's role doesn't allow this act."""

    kind = "forbidden"


class Conflict(DomainError):
    """The object is not in a state that allows this act now."""

    kind = "conflict"


class Refused(DomainError):
    """Well-formed and allowed, but a rule of the desk says no."""

    kind = "refused"


class Unavailable(DomainError):
    """A part this needs is not there now; the same call may pass later."""

    kind = "unavailable"
