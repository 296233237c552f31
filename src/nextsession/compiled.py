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


def compiled_allowing(*liberties: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator as `compiled` that may take `liberties` with float arithmetic, so that loops run in vectors.

    They are LLVM's fast-math flags: `contract` fuses a product with a sum, `reassoc` reorders sums,
    `nsz` ignores the sign of zero, `nnan` supposes that nothing is NaN.  Results then differ in the last
    bits from one processor to another.  Division by zero gives infinity and does not raise.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        jit = numba.njit(cache=True, nogil=True, fastmath=set(liberties), error_model="numpy")
        return cast("Callable[P, R]", jit(function))

    return decorate


compiled_fast = compiled_allowing("contract", "reassoc", "nsz")
"""`compiled` for float32 loops: sums may be reordered; NaN stays NaN, so a diverged model stays visible."""
