"""Get files from public addresses: resumed where they broke off, checked, and whole or not there at all.

```
download(address, folder)   name.part, name.part.tag  ──► name      (checked, then renamed)
unpack(archives, folder)    zip, tar, gz              ──► folder/   (written aside, then renamed)
```

A download that was cut, here or in an earlier run, goes on where it stopped as long as the server
says that the file is still the same (HTTP `Range` and `If-Range`).
"""

import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from nextsession.errors import DataError
from nextsession.files import whole_directory
from nextsession.progress import Progress, silent

_CHUNK: Final = 1 << 20
_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}
"""Answers that may be different in a moment."""


def cache_folder() -> Path:
    """Return where nextsession keeps what it can get or make again.

    `$NEXTSESSION_CACHE`, else `nextsession` in the platform's cache folder (`~/.cache`,
    `~/Library/Caches`, `%LOCALAPPDATA%`).
    """
    if chosen := os.environ.get("NEXTSESSION_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nextsession"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / ".cache") / "nextsession"


@dataclass(frozen=True)
class Address:
    """Where a file can be had, and how to know it."""

    url: str
    size: int | None = None
    """Bytes, where known."""
    checksum: str | None = None
    """`md5:...` or `sha256:...`, as its publisher gives it."""

    @property
    def name(self) -> str:
        """The name of the file: the last part of the address."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


def download(
    address: Address, folder: Path, *, progress: Progress = silent, attempts: int = 5, pause: float = 1.0
) -> Path:
    """Download a file into `folder`; one that is there already and passes its checks is left alone.

    Args:
        address: What to get.
        folder: Where to put it; made if need be.
        progress: Told the bytes done and to do.
        attempts: Tries in a row that bring nothing before giving up.
        pause: Seconds before the second of such tries; doubled each time.

    Returns:
        The path of the whole, checked file.

    Raises:
        DataError: The address cannot be reached or refuses, or what came is not what was promised.
    """
    target = folder / address.name
    if target.is_file() and (_fault(target, address) is None):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    idle = 0
    while True:
        before = _size(part)
        try:
            finished = _continue(address, part, progress)
        except (OSError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if isinstance(error, urllib.error.HTTPError) and error.code not in _PASSING:
                raise DataError(
                    f"{address.url} answers {error.code} {error.reason}. {_by_hand(address, folder)}"
                ) from None
            if isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError):
                raise DataError(f"{part} cannot be written: {error.strerror}.") from None
            finished, reason = False, str(getattr(error, "reason", error)) or type(error).__name__
        else:
            reason = "the connection was cut"
        if finished:
            break
        idle = 0 if _size(part) > before else idle + 1
        if idle >= attempts:
            raise DataError(f"{address.url} cannot be had: {reason}. {_by_hand(address, folder)}")
        if idle:
            time.sleep(pause * 2 ** (idle - 1))
    fault = _fault(part, address)
    _tag(part).unlink(missing_ok=True)
    if fault is not None:
        part.unlink()
        raise DataError(
            f"{address.url}: {fault}. What came was thrown away: try again, or look whether the file was replaced."
        )
    part.replace(target)
    return target


def unpack(archives: Sequence[Path], folder: Path) -> Path:
    """Unpack zips, tars (also compressed) and any other files into `folder`, which appears whole or not at all.

    A single folder at the top of an archive is left out: its content becomes that of `folder`.
    What is no archive (also `.csv.gz`, which is read as it is) is copied.

    Raises:
        DataError: An archive is damaged, or would write outside of `folder`.
    """
    with whole_directory(folder) as scratch:
        inside = scratch / ".archive"
        for archive in archives:
            inside.mkdir()
            try:
                _extract(archive, inside)
            except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
                raise DataError(f"{archive} cannot be unpacked: {error}.") from error
            entries = list(inside.iterdir())
            top = entries[0] if len(entries) == 1 and entries[0].is_dir() else inside
            for entry in list(top.iterdir()):
                entry.rename(scratch / entry.name)
            shutil.rmtree(inside)
    return folder


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            pack.extractall(folder)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tape:
            for member in tape:
                _take_out(tape, member, folder)
    elif re.search(r"\.(zip|tar|tgz|tar\.gz)$", archive.name):
        raise DataError(f"{archive} is damaged: it is no archive.")
    else:
        shutil.copy2(archive, folder)


def _take_out(tape: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one plain file of a tar; the safe filters of `extractall` are not in every Python 3.11."""
    place = (folder / member.name).resolve()
    if not place.is_relative_to(folder.resolve()) or not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name!r} is no plain file inside it")
    source = tape.extractfile(member)
    if source is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with source, place.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def _continue(address: Address, part: Path, progress: Progress) -> bool:
    """Ask for what is missing and append it; say whether the file is now complete."""
    have, tag = _size(part), _tag(part)
    request = urllib.request.Request(address.url, headers={"User-Agent": "nextsession"})
    if have and tag.is_file():
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is left to send: either everything is here, or the file has become shorter.
        complete = error.headers.get("Content-Range", "") == f"bytes */{have}"
        error.close()
        if not complete:
            part.unlink()
        return complete
    with answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length is not None else address.size
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            tag.write_text(validator, encoding="utf-8")
        else:
            tag.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as file:
            progress(address.name, done, total)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(address.name, done, total)
    return length is None or total is None or done >= total


def _tag(part: Path) -> Path:
    """The file that remembers which version of the remote file the part belongs to."""
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fault(path: Path, address: Address) -> str | None:
    """Say what is wrong with a file, if anything is."""
    if address.size is not None and path.stat().st_size != address.size:
        return f"the file must have {address.size} bytes, it has {path.stat().st_size}"
    if address.checksum is not None:
        kind, _, expected = address.checksum.partition(":")
        with path.open("rb") as handle:
            got = hashlib.file_digest(handle, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if got != expected:
            return f"the {kind} of the file must be {expected}, it is {got}"
    return None


def _by_hand(address: Address, folder: Path) -> str:
    return f"Without a network: get {address.name} elsewhere and put it into {folder}."
