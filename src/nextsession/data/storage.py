"""A `SessionLog` as files in a directory: plain `.npy` columns, memory-mapped; ids as Arrow; never pickle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextsession.data.cases import Cases
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary, read_ids, write_ids
from nextsession.errors import DataError

_OF_CASES = ("asked_at", "targets", "target_offsets", "groups", "ignored", "ignored_offsets")


class ColumnFile:
    """A `.npy` file that grows as values are appended, so that no column need be in memory whole."""

    def __init__(self, path: Path, kind: Any) -> None:
        """Start a new file for a column of this type."""
        self._path, self._kind = path, np.dtype(kind)
        self._rows = 0
        with path.open("wb") as handle:
            np.lib.format.write_array_header_1_0(handle, self._header())

    def append(self, values: NDArray[Any]) -> None:
        """Write values at the end."""
        with self._path.open("ab") as handle:
            handle.write(np.ascontiguousarray(values, dtype=self._kind).view(np.uint8).data)
        self._rows += len(values)

    def finish(self) -> None:
        """Write how many values there are into the header, which has room for it."""
        with self._path.open("r+b") as handle:
            np.lib.format.write_array_header_1_0(handle, self._header())

    def _header(self) -> dict[str, Any]:
        return {"descr": self._kind.str, "fortran_order": False, "shape": (self._rows,)}


def read_column(path: Path) -> NDArray[Any]:
    """Return a column, memory-mapped unless it is empty."""
    column: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return column


def write_log(folder: Path, log: SessionLog) -> dict[str, Any]:
    """Write all columns of a log into a folder; return what the manifest must say of them."""
    for name in ("items", "times", "session_offsets", "user_offsets"):
        _save(folder / f"{name}.npy", getattr(log, name))
    all_wanted = log.labels.strides == (0,) or bool(np.all(log.labels == 1))
    if not all_wanted:
        _save(folder / "labels.npy", log.labels)
    if log.actions is not None:
        _save(folder / "actions.npy", log.actions)
    for place, column in enumerate(log.features.values()):
        _save(folder / f"feature_{place}.npy", column.astype(str) if column.dtype == object else column)
    log.vocabulary.save(folder / "vocabulary.arrow")
    write_ids(folder / "users.arrow", log.users)
    if log.item_table is not None:
        write_item_table(folder / "item_table.arrow", log.item_table)
    return describe_columns(
        labels=not all_wanted,
        actions=None if log.actions is None else list(log.action_names),
        features=list(log.features),
        item_table=log.item_table is not None,
        timed=log.timed,
    )


def describe_columns(
    *, labels: bool, actions: list[str] | None, features: list[str], item_table: bool, timed: bool
) -> dict[str, Any]:
    """Return what `read_log` must know of a folder besides its files."""
    return {"labels": labels, "actions": actions, "features": features, "item_table": item_table, "timed": timed}


def read_log(folder: Path, columns: dict[str, Any]) -> SessionLog:
    """Return the log of a folder, its columns memory-mapped."""
    users = read_ids(folder / "users.arrow")
    return SessionLog(
        items=read_column(folder / "items.npy"),
        times=read_column(folder / "times.npy"),
        session_offsets=read_column(folder / "session_offsets.npy"),
        user_offsets=read_column(folder / "user_offsets.npy"),
        vocabulary=Vocabulary.load(folder / "vocabulary.arrow"),
        labels=read_column(folder / "labels.npy") if columns["labels"] else None,  # type: ignore[arg-type]
        actions=None if columns["actions"] is None else read_column(folder / "actions.npy"),
        action_names=tuple(columns["actions"] or ()),
        features={name: read_column(folder / f"feature_{place}.npy") for place, name in enumerate(columns["features"])},
        users=users,
        item_table=read_item_table(folder / "item_table.arrow") if columns["item_table"] else None,
        timed=columns["timed"],
    )


def write_cases(folder: Path, cases: Cases) -> dict[str, Any]:
    """Write questions into a new folder; return what the manifest must say of them."""
    if cases.news is not None or cases.held is not None:
        raise DataError("Prepared questions must be without news; only a protocol makes those.")
    folder.mkdir()
    for name in _OF_CASES:
        _save(folder / f"{name}.npy", getattr(cases, name))
    return write_log(folder, cases.histories)


def read_cases(folder: Path, columns: dict[str, Any]) -> Cases:
    """Return the questions of a folder, memory-mapped."""
    arrays: dict[str, Any] = {name: read_column(folder / f"{name}.npy") for name in _OF_CASES}
    return Cases(read_log(folder, columns), **arrays)


def write_item_table(path: Path, table: ItemTable) -> None:
    """Write what is known of items as an Arrow file: codes in lists and numbers, labels and bins in the schema."""
    columns, labels, bins = {}, {}, {}
    for name, feature in table.features.items():
        columns[f"feature {name}"] = pa.LargeListArray.from_arrays(pa.array(feature.offsets), pa.array(feature.codes))
        labels[name] = list(feature.labels)
        if feature.numbers is not None:
            columns[f"number {name}"], bins[name] = pa.array(feature.numbers), feature.bins
    if table.titles is not None:
        columns["titles"] = pa.array(table.titles, pa.large_string())
    notes = {"labels": json.dumps(labels), "bins": json.dumps(bins)}
    _write_arrow(path, pa.table(columns).replace_schema_metadata(notes))


def read_item_table(path: Path) -> ItemTable:
    """Return what `write_item_table` wrote."""
    table = _read_arrow(path)
    features = {}
    bins = json.loads(table.schema.metadata.get(b"bins", b"{}"))  # older files hold no numbers: bins stay as they are
    for name, labels in json.loads(table.schema.metadata[b"labels"]).items():
        column = table[f"feature {name}"].combine_chunks()
        numbers = table[f"number {name}"].combine_chunks().to_numpy() if name in bins else None
        features[name] = ItemFeature(
            column.offsets.to_numpy(), column.values.to_numpy(), tuple(labels), numbers, bins.get(name, 0)
        )
    titles = np.array(table["titles"].to_pylist(), dtype=object) if "titles" in table.column_names else None
    return ItemTable(features, titles)


def _save(path: Path, column: NDArray[Any]) -> None:
    file = ColumnFile(path, column.dtype)  # not np.save, whose errors do not say that the disk is full
    file.append(column)
    file.finish()


def _write_arrow(path: Path, table: Any) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_arrow(path: Path) -> Any:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
