"""The one seam to numba: `@compiled` turns a plain loop over arrays into machine code.

Loops over sessions and neighbours are clearest as loops.  Compiled code is kept on disk beside
the module (or in the user's cache folder), so each function is compiled once per machine.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` at its first call for the types it is given; the GIL is released while it runs."""
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True)(function))
