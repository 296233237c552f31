"""Mapped files as arrays, and some rows of them without their pages.

A page that is touched counts as memory of the process, and with each the system maps its neighbours: who
reads rows here and there soon has all of a matrix.  So rows of a mapped matrix are read from its file
(`RowReader`), which the system may keep in its cache as it sees fit: .6 us a row, where the map would take .1.
"""

import mmap
import os
import weakref
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.errors import ArtifactError

Number = TypeVar("Number", bound=np.generic)

FEW = 8192
"""Rows up to which they are read from the file; who wants more is quicker through the map."""

_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.intp))


class _Map(NamedTuple):
    """A file in memory."""

    begin: int
    """Its first address."""
    end: int
    descriptor: int


_maps: dict[int, _Map] = {}  # by descriptor
_CAN_READ = hasattr(os, "pread") and not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


def mapped(file: Path) -> NDArray[np.uint8]:
    """Map a file: processes share its pages until one changes its own.

    Raises:
        ArtifactError: It is empty.
    """
    with file.open("rb") as handle:
        try:
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise ArtifactError(f"{file} is damaged: it is empty.") from None
        array = np.frombuffer(content, np.uint8)
        if _CAN_READ:
            descriptor = os.dup(handle.fileno())
            begin = array.ctypes.data
            _maps[descriptor] = _Map(begin, begin + len(array), descriptor)
            weakref.finalize(content, _forget, descriptor).atexit = False
    return array


def mapped_array(file: Path) -> NDArray[Any]:
    """Map an array that `np.save` wrote.

    Raises:
        ArtifactError: It is no such file.
    """
    try:
        with file.open("rb") as handle:
            if np.lib.format.read_magic(handle) != (1, 0):
                raise ValueError("it is of another version")
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(handle)
            begin = handle.tell()
        found: NDArray[Any] = mapped(file)[begin:].view(dtype).reshape(shape, order="F" if by_column else "C")
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged: {error}.") from None
    return found


class RowReader(Generic[Number]):
    """Gives some rows of a matrix without touching its pages, if it is mapped."""

    def __init__(self, matrix: NDArray[Number]) -> None:
        """Find out whether a file holds the matrix, and where."""
        self.matrix = matrix
        self._place = _place_of(matrix) if matrix.strides[1] == matrix.itemsize else None

    def rows(self, codes: NDArray[Any]) -> NDArray[Number]:
        """Return some rows, `(len(codes), D)`: `matrix[codes]`.

        Raises:
            IndexError: There is no such row; codes are not counted from the end.
            OSError: The file has been cut short.
        """
        matrix, place = self.matrix, self._place
        if place is None or not 0 < len(codes) <= FEW:
            if len(codes) and codes.min() < 0:
                raise IndexError("a row before the first")
            some: NDArray[Number] = matrix[codes]
            return some
        found = np.empty((len(codes), matrix.shape[1]), matrix.dtype)
        wrong = _read(*place, matrix.strides[0], len(matrix), codes, found.view(np.uint8))
        if wrong == _NO_ROW:
            raise IndexError(f"there are {len(matrix)} rows")
        if wrong:
            raise OSError("a file that was mapped has been cut short, or cannot be read any more")
        return found


def rows_of(matrix: NDArray[Number], codes: NDArray[Any]) -> NDArray[Number]:
    """Return some rows of a matrix once; see `RowReader`."""
    return RowReader(matrix).rows(codes)


_NO_ROW, _SHORT = 1, 2


@compiled
def _read(
    descriptor: int, begin: int, stride: int, rows: int, codes: NDArray[np.integer[Any]], out: NDArray[np.uint8]
) -> int:
    """Fill the rows of `out` with those of a file whose row 0 is at `begin`; return what is wrong, 0 if nothing."""
    for code in codes:
        if code < 0 or code >= rows:
            return _NO_ROW
    place, width = out.ctypes.data, out.shape[1]
    for i in range(len(codes)):
        if _pread(np.int32(descriptor), place + i * width, width, begin + np.int64(codes[i]) * stride) != width:
            return _SHORT
    return 0


def _place_of(matrix: NDArray[Any]) -> tuple[int, int] | None:
    """Return the descriptor of the file that a matrix lies in, and where; None if it lies in none."""
    address = matrix.__array_interface__["data"][0]
    for one in tuple(_maps.values()):  # other threads add to them
        if one.begin <= address < one.end:
            return one.descriptor, address - one.begin
    return None


def _forget(descriptor: int) -> None:
    del _maps[descriptor]
    os.close(descriptor)
