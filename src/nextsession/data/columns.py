"""Writing the columns of a log from coded events: in their order, then without what the filters leave out.

Only a range of users is in memory at once, or, for the filters, a byte an event and three
numbers a session.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.filters import FilterAccount, keep_of
from nextsession.data.format import Filters, SessionRule
from nextsession.data.intake import Intake
from nextsession.data.log import offsets_of
from nextsession.data.sessions import NEVER, arrange
from nextsession.data.spill import partitions
from nextsession.data.storage import ColumnFile, describe_columns, read_column
from nextsession.errors import DataError
from nextsession.progress import Progress

EVENTS_AT_ONCE = 4_000_000
"""Most events that are put in order at once (about 100 bytes each)."""

_CHUNK = 1 << 20


def write_in_order(
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


def write_filtered(
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
        steps = "; ".join(str(account).splitlines())
        raise DataError(f"The filters leave nothing of the log; ask for less. Account: {steps}.")
    sessions, sizes, counts = _sessions_left(keep, old["times"], session_offsets, user_offsets)
    seen = _items_left(keep, old["items"], len(items))
    place = (np.cumsum(seen) - 1).astype(np.int32)
    for name, lengths in (("session_offsets", sizes), ("user_offsets", counts[counts > 0])):
        file = ColumnFile(folder / f"{name}.npy", np.int64)
        file.append(offsets_of(lengths))
        file.finish()
    files = {name: ColumnFile(folder / f"{name}.npy", column.dtype) for name, column in old.items()}
    done = 0
    for part in np.array_split(sessions, 1 + account.before.events // _CHUNK):
        events = _events_of(session_offsets, part)
        events = events[keep[events]]
        for name, column in old.items():
            files[name].append(place[column[events]] if name == "items" else column[events])
        done += len(part)
        progress("filter", done, len(sessions))
    for file in files.values():
        file.finish()
    for name in names:
        (folder / f"{name}.all").unlink()
    return items[seen], users[counts > 0], account


@compiled
def _sessions_left(
    keep: NDArray[np.bool_],
    times: NDArray[np.int64],
    session_offsets: NDArray[np.int64],
    user_offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the sessions of which something is left, how many events of each, and how many sessions of each user.

    Each user's are in the order of first events left: sessions given by id may overlap, and the one
    that began first may have lost its first events.
    """
    sessions = np.empty(len(session_offsets) - 1, np.int64)
    starts, sizes = np.empty_like(sessions), np.empty_like(sessions)
    counts = np.zeros(len(user_offsets) - 1, np.int64)
    n = 0
    for u in range(len(counts)):
        first = n
        for s in range(user_offsets[u], user_offsets[u + 1]):
            size, start = 0, 0
            for e in range(session_offsets[s], session_offsets[s + 1]):
                if keep[e]:
                    if size == 0:
                        start = times[e]
                    size += 1
            if size:
                place = n
                while place > first and starts[place - 1] > start:
                    for column in (sessions, starts, sizes):
                        column[place] = column[place - 1]
                    place -= 1
                sessions[place], starts[place], sizes[place] = s, start, size
                n += 1
        counts[u] = n - first
    return sessions[:n], sizes[:n], counts


@compiled
def _items_left(keep: NDArray[np.bool_], items: NDArray[np.int32], n_items: int) -> NDArray[np.bool_]:
    seen = np.zeros(n_items, np.bool_)
    for e in range(len(items)):
        if keep[e]:
            seen[items[e]] = True
    return seen


def _events_of(session_offsets: NDArray[np.int64], sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the events of these sessions, end to end."""
    lengths = session_offsets[sessions + 1] - session_offsets[sessions]
    ends = offsets_of(lengths)
    return np.arange(ends[-1]) + np.repeat(session_offsets[sessions] - ends[:-1], lengths)
