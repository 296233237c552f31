"""The bytes of a text file: unpacked, checked on the way, counted."""

import codecs
import gzip
import io
import zlib
from typing import Any, BinaryIO

from nextsession.errors import DataError

BLOCK = 1 << 23
"""Bytes of text read at once; no row may be longer."""

BAD = "\ufdd0"
"""Stands for bytes that are not UTF-8 (no text may hold this character)."""

_MARKS = {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text", b"PAR1": "Parquet", b"PK\x03\x04": "a zip archive"}
_BAD = BAD.encode()
_EMPTY = (b"\n\n", b"\n\r", b"\r\r")  # between two of these there is no text; a lone \r ends a line too


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return BAD, error.end


codecs.register_error("nextsession.mark", _mark)


class Text(io.RawIOBase):
    """A text file as bytes, gunzipped if need be, without a byte order mark.

    Counts lines and quotes as they go by, so that a reader can tell when a quote swallowed lines.
    """

    def __init__(self, handle: BinaryIO, name: str) -> None:
        """Take an open file (or pipe) and its name for messages.

        Raises:
            DataError: The file is empty, or plainly something else than text.
        """
        super().__init__()
        self._name, self._handle = name, handle
        buffered: Any = handle if hasattr(handle, "peek") else io.BufferedReader(handle)
        packed = buffered.peek(2)[:2] == b"\x1f\x8b"
        if name.endswith(".gz") and not packed and buffered.peek(1):
            raise DataError(f"{name} is named .gz and is not gzipped.")
        self._source: Any = gzip.GzipFile(fileobj=buffered) if packed else buffered
        self._old, self._new = b"", b""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._ahead, self._last = b"", b"\n"
        self.lines = 0
        """Line ends so far."""
        self.quotes = 0
        """Double quotes so far."""
        self.marked = False
        """Whether there were bytes that are not UTF-8 so far (if `mark_bad` was asked for)."""
        self.blank = False
        """Whether there was an empty line so far."""
        self._ahead = self._take(1 << 16).removeprefix(b"\xef\xbb\xbf")
        if not self._ahead.strip():
            raise DataError(f"{name} is empty.")
        for mark, kind in _MARKS.items():
            if self._ahead.startswith(mark):
                remedy = "convert it to UTF-8" if "UTF" in kind else "see whether its name or kind is right"
                raise DataError(f"{name} must be UTF-8 text, it is {kind}; {remedy}.")

    def readable(self) -> bool:
        """Say yes."""
        return True

    @property
    def position(self) -> int:
        """How many bytes of the file have been read, before unpacking."""
        return self._handle.tell() if self._handle.seekable() else 0

    @property
    def head(self) -> bytes:
        """The first bytes of the file, before any is read; they stay to be read."""
        return self._ahead

    def first_line(self) -> tuple[bytes, int]:
        """Return the first line that is not empty and the number of empty ones before it; all stay to be read."""
        while b"\n" not in self._ahead.lstrip() and len(self._ahead) < BLOCK:
            more = self._take(1 << 16)
            if not more:
                break
            self._ahead += more
        lines = self._ahead.splitlines()
        empty = next(number for number, line in enumerate(lines) if line.strip())
        return lines[empty], empty

    def replace(self, old: bytes, new: bytes) -> None:
        """Replace one sequence of bytes by another in all that is still to be read.

        Raises:
            DataError: The new one occurs in the file already (as it is read).
        """
        self._old, self._new = old, new

    def mark_bad(self) -> None:
        """Put `BAD` in the place of bytes that are not UTF-8, in all that is still to be read."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("nextsession.mark")

    def read(self, size: int = -1) -> bytes:
        """Return at most about `size` bytes, none at the end of the file.

        Raises:
            DataError: The gzip data is damaged or ends too soon.
        """
        block = self._ahead or self._take(size)
        self._ahead = b""
        if 0 <= size < len(block):
            block, self._ahead = block[:size], block[size:]
        if self._old and block:
            end = block.rfind(b"\n") + 1
            while end == 0 and len(block) < BLOCK:  # replace in whole lines: none is cut inside a delimiter
                more = self._ahead or self._take(size)
                self._ahead = b""
                if not more:
                    end = len(block)
                    break
                block += more
                end = block.rfind(b"\n") + 1
            block, self._ahead = block[:end], block[end:] + self._ahead
            if self._new in block:
                raise DataError(f"{self._name} must not hold the byte {self._new!r}.")
            block = block.replace(self._old, self._new)
        if self._decoder is not None and not (block.isascii() and self._decoder.getstate()[0] == b""):
            block = self._decoder.decode(block).encode() or self.read(size)
            self.marked = self.marked or _BAD in block
        return block

    def _take(self, size: int) -> bytes:
        try:
            block: bytes = self._source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{self._name} is damaged or cut short: {error}. Fetch or write it again.") from None
        if not block and self._last not in b"\r\n":
            block = b"\n"  # a last line without an end is a line
        self._last = block[-1:] or self._last
        self.lines += block.count(b"\n")
        self.quotes += block.count(b'"')
        self.blank = self.blank or block[:1] in (b"\n", b"\r") or any(ends in block for ends in _EMPTY)
        return block
