"""The one seam to numba: `@compiled` turns a plain loop over arrays into machine code.

Loops over sessions and neighbours are clearest as loops.  Compiled code is kept on disk beside
the module (or in the user's cache folder), so each function is compiled once per machine.  It holds
the code of every function that it calls, also those of other modules, whose changes numba's own
cache does not see: a package upgraded in place, or a checkout, would go on running what is gone.
So ours is asked for by what all of them say (`ingredients`).
"""

import hashlib
import importlib.util
import pickle
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.core.runtime.nrt import rtsys
from numba.cpython import hashing  # noqa: F401 - tells the linker what code that hashes texts asks for
from numba.np import linalg

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` at its first call for the types it is given; the GIL is released while it runs."""
    return cast("Callable[P, R]", _kept(numba.njit(nogil=True)(function)))


def compiled_allowing(*liberties: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator as `compiled` that may take `liberties` with float arithmetic, so that loops run in vectors.

    They are LLVM's fast-math flags: `contract` fuses a product with a sum, `reassoc` reorders sums,
    `nsz` ignores the sign of zero, `nnan` supposes that nothing is NaN.  Results then differ in the last
    bits from one processor to another.  Division by zero gives infinity and does not raise.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        jit = numba.njit(nogil=True, fastmath=set(liberties), error_model="numpy")
        return cast("Callable[P, R]", _kept(jit(function)))

    return decorate


def compiled_fast(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a float32 loop: sums may be reordered; NaN stays NaN, so a diverged model stays visible."""
    return compiled_allowing("contract", "reassoc", "nsz")(function)


def ingredients(function: Any) -> str:
    """Return a digest of what the machine code of a compiled function is made of.

    That is its own code and options, and those of all compiled functions and the values of all
    constants that it names, whichever module they are from, and so on.
    """
    digest = hashlib.sha256()
    met: set[int] = set()
    left = [function]
    while left:
        thing = left.pop()
        if isinstance(thing, Dispatcher | FunctionType):
            if id(thing) in met:
                continue
            met.add(id(thing))
        if isinstance(thing, Dispatcher):
            digest.update(_text(dict(thing.targetoptions)))
            left.append(thing.py_func)
        elif isinstance(thing, FunctionType):
            for code in _codes(thing.__code__):
                digest.update(code.co_code)
                digest.update(_text((code.co_names, [c for c in code.co_consts if not isinstance(c, CodeType)])))
            left += _named(thing)
        elif isinstance(thing, type):
            digest.update(_text((thing.__qualname__, getattr(thing, "_fields", ()))))
        elif callable(getattr(thing, "_defn", None)):  # an intrinsic: a function that writes machine code
            left.append(thing._defn)
        else:
            digest.update(_text(thing))
    return digest.hexdigest()


class _Cache(FunctionCache):
    """Numba's own, with keys that follow what a function calls, and without a compiler where none is needed."""

    function: Any

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load machine code that was kept; none if it was cut short, or is of modules that are gone since.

        Numba would first read in all that it knows of compiling, SciPy included: half a second and 20 MB for
        each process.  It does so in any case once something must be compiled.
        """
        rtsys.initialize(target_context)
        linalg.ensure_blas = _has_blas  # SciPy is imported by what needs it, not by whatever sorts an array
        with self._guard_against_spurious_io_errors():
            try:
                return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]
            except (ImportError, AttributeError, EOFError, pickle.UnpicklingError):  # numba pickles, we never do
                return None  # it is compiled, and kept, again

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return *super()._index_key(sig, codegen), ingredients(self.function)  # type: ignore[no-untyped-call]


def _has_blas() -> None:
    if importlib.util.find_spec("scipy") is None:
        raise ImportError("scipy")


def _kept(function: Any) -> Any:
    """Let compiled code be kept on disk, if there is a place for it: containers may have none."""
    if not isinstance(function, Dispatcher):  # numba is told to compile nothing
        return function
    try:
        cache = _Cache(function.py_func)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return function
    cache.function = function
    function._cache = cache  # type: ignore[attr-defined]
    return function


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _named(function: FunctionType) -> list[Any]:
    """Return what a function finds by name outside itself, as far as it is of the same package or a constant."""
    package = function.__module__.partition(".")[0]

    def own(thing: Any) -> bool:
        return isinstance(thing, FunctionType | type) and thing.__module__.partition(".")[0] == package

    names = {name: None for code in _codes(function.__code__) for name in code.co_names}
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    found: list[Any] = []
    for thing in [*(function.__globals__[name] for name in names if name in function.__globals__), *cells]:
        if isinstance(thing, ModuleType):
            if thing.__name__.partition(".")[0] == package:
                found += [vars(thing)[name] for name in names if name in vars(thing)]
        elif own(thing) or not isinstance(thing, FunctionType | type):
            found.append(thing)
    return found


def _text(thing: Any) -> bytes:
    """Write a constant so that equal ones are written alike in every process."""
    if isinstance(thing, np.ndarray):
        return repr((thing.dtype, thing.shape)).encode() + thing.tobytes()
    if isinstance(thing, dict):
        return _text([(key, thing[key]) for key in sorted(thing)])
    if isinstance(thing, set | frozenset):
        return b"{" + b",".join(sorted(map(_text, thing))) + b"}"
    if isinstance(thing, tuple | list):
        return b"(" + b",".join(map(_text, thing)) + b")"
    if isinstance(thing, bool | int | float | complex | str | bytes | np.generic | None):
        return f"{type(thing).__name__}:{thing!r}".encode()
    text = str(thing)
    return (type(thing).__qualname__ if " at 0x" in text else text).encode()  # addresses differ from run to run
