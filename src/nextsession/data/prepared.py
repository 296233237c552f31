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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.cases import Cases
from nextsession.compiled import compiled
from nextsession.data.filters import FilterAccount, keep_of
from nextsession.data.format import EventBatch, Filters, LogFormat, SessionRule
from nextsession.data.intake import BadRows, Intake
from nextsession.data.items import ItemTable
from nextsession.data.log import SessionLog, offsets_of, session_order
from nextsession.data.sessions import NEVER, arrange
from nextsession.data.spill import partitions
from nextsession.data.storage import (
    ColumnFile,
    describe_columns,
    read_cases,
    read_column,
    read_log,
    write_cases,
    write_ids,
    write_item_table,
    write_log,
)
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, DataError
from nextsession.files import sha256, verify, whole_directory
from nextsession.progress import Progress, silent

FORMAT = 1
EVENTS_AT_ONCE = 8_000_000
"""Most events that are put in order at once (about 100 bytes each)."""

_CHUNK = 1 << 20
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
        items, users, columns = _order(intake, sessions, scratch, progress)
        account = None
        if filters != Filters():
            items, users, account = _filter(scratch, filters, items, users, progress)
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


def _order(
    intake: Intake, rule: SessionRule, folder: Path, progress: Progress
) -> tuple[NDArray[Any], NDArray[Any], dict[str, Any]]:
    """Write all columns in the order of a log; return item ids, user ids and what the columns are."""
    spill = intake.finish()
    fields = set(spill.kind.names or ())
    item_ids, item_place = intake.items.settle()
    user_ids, user_place = intake.users.settle()
    tables = {name: feature.values() for name, feature in intake.features.items()}
    files = {
        name: ColumnFile(folder / f"{name}.npy", np.int64) for name in ("times", "session_offsets", "user_offsets")
    }
    files["items"] = ColumnFile(folder / "items.npy", np.int32)
    if "label" in fields:
        files["labels"] = ColumnFile(folder / "labels.npy", np.int8)
    if "action" in fields:
        files["actions"] = ColumnFile(folder / "actions.npy", np.int16)
    for name, feature in intake.features.items():
        table = tables[name]
        kind = np.dtype(np.float64) if table is None else table.dtype
        files[feature.field] = ColumnFile(folder / f"{feature.field}.npy", kind)
    files["session_offsets"].append(np.zeros(1, np.int64))
    files["user_offsets"].append(np.zeros(1, np.int64))
    gap = {"gap": rule.gap, "time": 0}.get(rule.by, NEVER)
    total, done, n_sessions = len(spill), 0, 0
    for rows in partitions(spill, user_place, folder, EVENTS_AT_ONCE):
        times = rows["time"] if "time" in fields else np.zeros(len(rows), np.int64)
        order = arrange(
            rows["user"],
            times,
            n_users=int(rows["user"].max()) + 1,
            gap=gap,
            positions=rows["position"] if "position" in fields else None,
            sessions=rows["session"] if "session" in fields else None,
        )
        files["items"].append(item_place[rows["item"][order.rows]])
        files["times"].append(times[order.rows] if "time" in fields else _places(rows["user"][order.rows]))
        if "label" in fields:
            files["labels"].append(rows["label"][order.rows])
        if "action" in fields:
            files["actions"].append(rows["action"][order.rows])
        for name, feature in intake.features.items():
            values, table = rows[feature.field][order.rows], tables[name]
            files[feature.field].append(values if table is None else table[values])
        files["session_offsets"].append(order.session_offsets[1:] + done)
        files["user_offsets"].append(order.user_offsets[1:] + n_sessions)
        done += len(rows)
        n_sessions += len(order.session_offsets) - 1
        progress("order", done, total)
    for file in files.values():
        file.finish()
    columns = describe_columns(
        labels="label" in fields,
        actions=intake.actions.texts().to_list() if "action" in fields else None,
        features=list(intake.features),
        item_table=False,
        timed="time" in fields,
    )
    return item_ids, user_ids, columns


def _places(users: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the place of each event among those of its user; users are in order, `(N,)`."""
    starts = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
    return np.arange(len(users)) - np.repeat(starts, np.diff(np.append(starts, len(users))))


def _filter(
    folder: Path, filters: Filters, items: NDArray[Any], users: NDArray[Any], progress: Progress
) -> tuple[NDArray[Any], NDArray[Any], FilterAccount]:
    """Write the columns anew without what the filters leave out; return ids of items and users, and the account."""
    names = [path.stem for path in folder.glob("*.npy")]
    old = {}
    for name in names:
        (folder / f"{name}.npy").rename(folder / f"{name}.all")
        old[name] = read_column(folder / f"{name}.all")
    session_offsets, user_offsets = old.pop("session_offsets"), old.pop("user_offsets")
    labels = old.get("labels", np.broadcast_to(np.int8(1), len(old["items"])))
    keep, account = keep_of(old["items"], labels, session_offsets, user_offsets, len(items), filters)
    if account.after.events == 0:
        raise DataError(f"The filters leave nothing of the log:\n{account}")
    sizes = np.add.reduceat(keep, session_offsets[:-1], dtype=np.int64)
    counts = np.add.reduceat(sizes > 0, user_offsets[:-1], dtype=np.int64)
    sessions = _sessions_left(keep, old["times"], session_offsets, user_offsets)
    seen = np.zeros(len(items), np.bool_)
    seen[old["items"][keep]] = True
    place = (np.cumsum(seen) - 1).astype(np.int32)
    for name, lengths in (("session_offsets", sizes[sessions]), ("user_offsets", counts[counts > 0])):
        file = ColumnFile(folder / f"{name}.npy", np.int64)
        file.append(offsets_of(lengths))
        file.finish()
    files = {name: ColumnFile(folder / f"{name}.npy", column.dtype) for name, column in old.items()}
    for start in range(0, len(sessions), _CHUNK):
        events = _events_of(session_offsets, sessions[start : start + _CHUNK])
        events = events[keep[events]]
        for name, column in old.items():
            files[name].append(place[column[events]] if name == "items" else column[events])
        progress("filter", min(start + _CHUNK, len(sessions)), len(sessions))
    for file in files.values():
        file.finish()
    for name in names:
        (folder / f"{name}.all").unlink()
    return items[seen], users[counts > 0], account


def _sessions_left(
    keep: NDArray[np.bool_],
    times: NDArray[np.int64],
    session_offsets: NDArray[np.int64],
    user_offsets: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the sessions of which something is left, each user's in the order of first events left.

    Sessions given by id may overlap: the one that began first may have lost its first events.
    """
    firsts = _first_kept(keep, session_offsets)
    sessions = np.flatnonzero(firsts >= 0)
    starts = times[firsts[sessions]]
    users = np.repeat(np.arange(len(user_offsets) - 1), np.diff(user_offsets))[sessions]
    order = session_order(starts, users)
    return sessions if order is None else sessions[order]


@compiled
def _first_kept(keep: NDArray[np.bool_], session_offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    firsts = np.full(len(session_offsets) - 1, -1, np.int64)
    for s in range(len(firsts)):
        for e in range(session_offsets[s], session_offsets[s + 1]):
            if keep[e]:
                firsts[s] = e
                break
    return firsts


def _events_of(session_offsets: NDArray[np.int64], sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the events of these sessions, end to end."""
    lengths = session_offsets[sessions + 1] - session_offsets[sessions]
    ends = offsets_of(lengths)
    return np.arange(ends[-1]) + np.repeat(session_offsets[sessions] - ends[:-1], lengths)


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """Give a scratch directory that becomes `folder`; say so plainly where that cannot be."""
    if folder.exists() and not (folder / "manifest.json").is_file():
        raise ArtifactError(f"{folder} exists and is not a prepared log; choose another place or remove it.")
    try:
        with whole_directory(folder) as scratch:
            yield scratch
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise ArtifactError(
            f"{folder} could not be written: {error.strerror}. Nothing was left there; "
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
    file = folder / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{folder} is not a prepared log: it has no manifest.json. `nextsession data prepare` makes one."
        ) from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise ArtifactError(f"{file} is damaged: it names no format.")
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{folder} has format {manifest['format']}, this version reads up to {FORMAT}: upgrade nextsession."
        )
    if not isinstance(manifest.get("columns"), dict) or not isinstance(manifest.get("files"), dict):
        raise ArtifactError(f"{folder} is not a prepared log: its manifest names no columns.")
    return manifest
