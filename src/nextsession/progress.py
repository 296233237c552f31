"""How long work is reported: a function the caller may give; silent unless given."""

from typing import Protocol


class Progress(Protocol):
    """Told how far a piece of work has come.

    A function with this signature is enough; `nextsession.cli` passes one that draws bars, tests
    pass one that records.
    """

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> None:
        """Report that `done` of `total` units of `task` are finished (`total` None: not known).

        `note` says how it goes, such as the loss of a network and how fast it is trained.
        """


def silent(task: str, done: int, total: int | None, note: str = "") -> None:
    """Report nothing."""
