"""Who did it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, a program or a process that changes something.

    `name` is written into the audit trail as it was at the time: `user:trader`, `cli:root`,
    `system:gateway`. `user_id` is None for everything that is no user of the desk.
    """

    name: str
    user_id: int | None = None
    automated: bool = False
    """True for tokens and strategies: they get the rules meant for programs."""

    @classmethod
    def system(cls, process: str) -> "Actor":
        """The actor for what the desk does by itself."""
        return cls(f"system:{process}", automated=True)
