"""How long work is reported: a function the caller may give; silent unless given."""

from typing import Protocol


class Progress(Protocol):
    """Told how far a piece of work has come.

    A function with this signature is enough; `nextsession.cli` passes one that draws bars, tests
    pass one that records.
    """

    def __call__(self, task: str, done: int, total: int | None) -> None:
        """Report that `done` of `total` units of `task` are finished (`total` None: not known)."""


def silent(task: str, done: int, total: int | None) -> None:
    """Report nothing."""
