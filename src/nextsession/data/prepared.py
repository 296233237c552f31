"""The prepared log: a directory of memory-mapped columns with a manifest; reading, writing, making.

```
log/
├── manifest.json         format, counts, sources, settings, filter account, hashes, versions
├── items.npy  times.npy  session_offsets.npy  user_offsets.npy
├── labels.npy            unless every event was wanted
├── actions.npy           if events have kinds
├── feature_0.npy ...     further columns beside each event, named in the manifest
├── vocabulary.arrow      item ids in the order of their codes (sorted)
├── users.arrow           user ids in the order of the rows (sorted)
├── item_table.arrow      side features and titles, if there are any
├── questions/            prepared questions, if there are any
└── rejected.csv          rows set aside, if there are any
```

Written beside its place and renamed, so a reader sees a whole log or none.  A raw log may be larger
than memory: events stream, coded, through a scratch file (`spill`), and are put in order one range
of users after another.  The result depends on neither batches nor ranges.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nextsession.data.cases import Cases
from nextsession.data.columns import write_filtered, write_in_order
from nextsession.data.format import EventBatch, Filters, LogFormat, SessionRule
from nextsession.data.intake import BadRows, Intake
from nextsession.data.items import ItemTable
from nextsession.data.log import SessionLog
from nextsession.data.storage import (
    read_cases,
    read_log,
    write_cases,
    write_item_table,
    write_log,
)
from nextsession.data.vocabulary import Vocabulary, write_ids
from nextsession.errors import ArtifactError
from nextsession.files import manifest_of, sha256, verify, whole_directory
from nextsession.progress import Progress, silent

FORMAT = 1
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared log: its events, what is known of how it was made, and ready questions if it has any."""

    path: Path
    log: SessionLog
    """Memory-mapped."""
    manifest: dict[str, Any]
    """`counts`, `span` (ms), `sources`, `settings`, `filters` (the account), `quarantined`, `unwanted`,
    `notes`, `versions`, `files` (SHA-256)."""
    questions: Cases | None = None

    @classmethod
    def load(cls, path: str | Path) -> "Prepared":
        """Verify and open a prepared log.

        Raises:
            ArtifactError: There is none, a file is missing or damaged, or a newer version wrote it.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        verify(folder, manifest["files"])
        return cls._open(folder, manifest)

    @classmethod
    def save(
        cls,
        path: str | Path,
        log: SessionLog,
        *,
        questions: Cases | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> "Prepared":
        """Write a log that is in memory, and questions that belong to it; return it, opened.

        Raises:
            ArtifactError: Something else is at `path`, or it cannot be written.
        """
        folder = Path(path)
        with _place(folder) as scratch:
            columns = write_log(scratch, log)
            asked = None if questions is None else write_cases(scratch / "questions", questions)
            facts: dict[str, Any] = {"sources": [], "settings": {}, "filters": None, "quarantined": 0, "unwanted": 0}
            _write_manifest(scratch, columns, {**facts, "notes": dict(notes or {}), "questions": asked})
        return cls._open(folder, _read_manifest(folder))

    @classmethod
    def _open(cls, folder: Path, manifest: dict[str, Any]) -> "Prepared":
        asked = manifest["questions"]
        questions = None if asked is None else read_cases(folder / "questions", asked)
        return cls(folder, read_log(folder, manifest["columns"]), manifest, questions)


def prepare(
    batches: Iterable[EventBatch],
    out: str | Path,
    *,
    form: LogFormat,
    sessions: SessionRule,
    filters: Filters,
    bad_rows: BadRows = "fail",
    item_table: Callable[[Vocabulary], ItemTable] | None = None,
    questions: Callable[[Vocabulary], Cases] | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Clean, order, cut and filter a raw log, and write it in the prepared form.

    Args:
        batches: The raw log, as `read_events` gives it.
        out: The directory to write; a prepared log already there is replaced at the last moment.
        form: How the raw log is written.
        sessions: Where sessions begin and end.
        filters: What is left out.
        bad_rows: What becomes of rows that cannot be used: `fail`, or `quarantine` writes them to
            `rejected.csv` and counts them.
        item_table: Gives what is known of the items that are left.
        questions: Gives ready questions that belong to the log.
        notes: Kept in the manifest as they are.
        progress: Told how far the work has come.

    Raises:
        DataError: A row is bad (`fail`), or nothing is left.
        ConfigError: The session rule needs a column that the format does not name.
        ArtifactError: Something else is at `out`, or it cannot be written.
    """
    folder = Path(out)
    with _place(folder) as scratch:
        intake = Intake(form, sessions, scratch, bad_rows)
        for batch in batches:
            intake.add(batch)
            progress("clean", sum(intake.rows.values()), None)
        items, users, columns = write_in_order(intake, sessions, scratch, progress)
        account = None
        if filters != Filters():
            items, users, account = write_filtered(scratch, filters, items, users, progress)
        vocabulary = Vocabulary(items)
        vocabulary.save(scratch / "vocabulary.arrow")
        write_ids(scratch / "users.arrow", users)
        if item_table is not None:
            table = item_table(vocabulary)
            table.check(len(vocabulary))
            write_item_table(scratch / "item_table.arrow", table)
        asked = None if questions is None else write_cases(scratch / "questions", questions(vocabulary))
        facts = {
            "sources": [{"name": name, "rows": rows, "bytes": _size(name)} for name, rows in intake.rows.items()],
            "settings": {
                "format": form.model_dump(mode="json"),
                "sessions": sessions.model_dump(mode="json"),
                "filters": filters.model_dump(mode="json"),
            },
            "filters": None if account is None else account.to_dict(),
            "quarantined": intake.rejected,
            "unwanted": intake.unwanted,
            "notes": dict(notes or {}),
            "questions": asked,
        }
        _write_manifest(scratch, {**columns, "item_table": item_table is not None}, facts)
    return Prepared._open(folder, _read_manifest(folder))


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """Give a scratch directory that becomes `folder`; say so plainly where that cannot be."""
    if folder.exists() and not (folder / "manifest.json").is_file():
        raise ArtifactError(f"{folder} exists and is not a prepared log; choose another place or remove it.")
    try:
        with whole_directory(folder) as scratch:
            yield scratch
    except OSError as error:
        if error.errno is None or error.errno not in _REFUSED:
            raise
        raise ArtifactError(
            f"{folder} could not be written: {os.strerror(error.errno)}. Nothing was left there; "
            f"make room or choose another place, and run it again."
        ) from None


def _size(name: str) -> int | None:
    path = Path(name)
    return path.stat().st_size if path.is_file() else None


def _write_manifest(folder: Path, columns: dict[str, Any], facts: Mapping[str, Any]) -> None:
    log = read_log(folder, columns)
    spans = [int(log.times.min()), int(log.times.max())] if log.n_events else []
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT,
        "counts": {
            "events": log.n_events,
            "sessions": log.n_sessions,
            "users": len(log),
            "items": log.n_items,
            "wanted": int(np.count_nonzero(log.labels)),
        },
        "span": spans if log.timed else [],
        **facts,
        "columns": columns,
        "versions": {name: version(name) for name in ("nextsession", "numpy", "polars", "pyarrow")},
        "files": {name: sha256(folder / name) for name in files},
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = manifest_of(folder, "prepared log", FORMAT, " `nextsession data prepare` makes one.")
    if not isinstance(manifest.get("columns"), dict) or not isinstance(manifest.get("files"), dict):
        raise ArtifactError(f"{folder} is not a prepared log: its manifest names no columns.")
    return manifest
