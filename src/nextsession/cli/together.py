"""Commands that several processes run together, started by `torchrun`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from nextsession.cli.terminal import be_quiet

if TYPE_CHECKING:
    from nextsession.config import Runtime


class Together(Protocol):
    """The processes that run a command."""

    @property
    def first(self) -> bool:
        """Is this the one that writes and shows?"""

    def wait(self) -> None:
        """Return once all are here."""


class _Alone:
    first = True

    def wait(self) -> None:
        return


@contextmanager
def together(runtime: "Runtime") -> Iterator[Together]:
    """Meet the processes that were started with this one; all but the first are quiet.

    Raises:
        ConfigError: They cannot be found, or the runtime asks for a GPU that is not there.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":  # nothing heavy is imported for the usual case
        yield _Alone()
        return
    from nextsession.distributed import joined
    from nextsession.neural import device_of

    with joined(device_of(runtime)) as processes:
        if not processes.first:
            be_quiet(True)
        yield processes
