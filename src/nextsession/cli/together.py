"""Commands that several processes run together, started by `torchrun`."""

import os
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


def together(runtime: "Runtime") -> Together:
    """Meet the processes that were started with this one; all but the first are quiet.

    Raises:
        ConfigError: They cannot be found, or the runtime asks for a GPU that is not there.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":  # nothing heavy is imported for the usual case
        return _Alone()
    from nextsession.distributed import joined
    from nextsession.neural import device_of

    processes = joined(device_of(runtime))
    if not processes.first:
        be_quiet(True)
    return processes
