"""Files and directories that appear whole or not at all, and can prove that they are undamaged."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextsession.errors import ArtifactError

_AT_ONCE = 4_000_000
"""Bytes that are hashed without letting other threads of Python in between."""


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Give a scratch directory that takes the place of `path` when the block ends well, and vanishes otherwise.

    A process that is killed leaves its scratch directory behind, hidden; the next that writes to
    `path` removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mend(path)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    claim = _claim(scratch)
    try:
        yield scratch
        for file in scratch.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            file.chmod(0o755 if file.is_dir() else 0o644)  # whoever serves may be another than who learnt
        scratch.chmod(0o755)
        if not path.exists():
            scratch.rename(path)
        else:
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.rename(old / "was")
            try:
                scratch.rename(path)
            except BaseException:
                (old / "was").rename(path)
                raise
            finally:
                shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    finally:
        if claim is not None:
            os.close(claim)


def mend(path: Path) -> None:
    """Remove what killed processes left beside `path`; put back what one of them had set aside."""
    left = re.compile(rf"\.{re.escape(path.name)}\.(old\.)?[a-z0-9_]{{8}}")
    for stale in path.parent.iterdir():
        if not left.fullmatch(stale.name) or not stale.is_dir():
            continue
        claim = _claim(stale)
        if claim is None:  # somebody is still writing there
            continue
        os.close(claim)
        if (stale / "was").exists() and not path.exists():
            (stale / "was").rename(path)
        shutil.rmtree(stale, ignore_errors=True)


def _claim(folder: Path) -> int | None:
    """Lock a directory until the process ends or the descriptor is closed; none where that cannot be."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a scratch file that takes the place of `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest, buffer = hashlib.sha256(), bytearray(min(_AT_ONCE, path.stat().st_size + 1))
    with path.open("rb", buffering=0) as handle:
        while size := handle.readinto(buffer):
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


def hash_ahead(folders: Iterable[Path]) -> threading.Thread:
    """Begin to hash what the manifests in folders and theirs name, while something else is done, for `verify`.

    What changes afterwards is hashed again.  A process that is forked has it only if the thread had ended.
    """

    def work() -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # whoever needs the file says so
            patterns = ("manifest.json", "*/manifest.json")
            manifests = [file for folder in folders for pattern in patterns for file in folder.glob(pattern)]
            named = [(file.parent, json.loads(file.read_text(encoding="utf-8")).get("files", {})) for file in manifests]
            files = {(folder / name).resolve() for folder, names in named for name in names}
            for file in sorted(files, key=lambda one: -one.stat().st_size):
                hashing = _Hashing(_state_of(file))
                _ahead[file] = hashing
                try:
                    hashing.found = sha256(file)
                finally:
                    hashing.done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@dataclass(eq=False)
class _Hashing:
    """The hash of a file, which is being found out."""

    state: tuple[int, ...]
    done: threading.Event = field(default_factory=threading.Event)
    found: str | None = None


_ahead: dict[Path, _Hashing] = {}


def _state_of(file: Path) -> tuple[int, ...]:
    """Return what changes when a file does."""
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _hash_of(file: Path) -> str:
    hashing = _ahead.pop(file.resolve(), None)
    if hashing is None or hashing.state != _state_of(file):
        return sha256(file)
    hashing.done.wait()
    return hashing.found or sha256(file)


def manifest_of(folder: Path, what: str, newest: int, otherwise: str = "") -> dict[str, Any]:
    """Read the `manifest.json` of a directory we wrote.

    Args:
        folder: The directory.
        what: What it should be, for messages: "saved model".
        newest: The newest format that can be read.
        otherwise: What to do where there is none, for the message.

    Raises:
        ArtifactError: There is none, it is damaged, or a newer version wrote it.
    """
    file = folder / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(f"{folder} is not a {what}: it has no manifest.json.{otherwise}") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise ArtifactError(f"{file} is damaged: it names no format.")
    if manifest["format"] > newest:
        raise ArtifactError(
            f"{folder} has format {manifest['format']}, this version reads up to {newest}: upgrade nextsession."
        )
    return manifest


def verify(path: Path, files: Mapping[str, str]) -> None:
    """Raise `ArtifactError` unless every file has the hash the manifest gives."""
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing.")
        if _hash_of(file) != expected:
            raise ArtifactError(f"{file} is damaged: its hash is not the manifest's.")
