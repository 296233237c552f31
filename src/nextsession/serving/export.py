"""From the log of a server to the log that models learn from.

What was erased is not in the log any more, so it is in no export.  A log exported before an erasure
still holds it: `without_erased` takes it out.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nextsession.data.log import SessionLog
from nextsession.files import whole_file
from nextsession.serving.events import SHOWN, Tombstone, digest_of
from nextsession.serving.reading import Reader
from nextsession.serving.store import Store

COLUMNS = ("visitor", "item", "time", "action", "label", "request")


def rows(store: Store | Reader, *, after: int = 0, shown: bool = False) -> Iterator[dict[str, Any]]:
    """Give the events of a store, and with `shown` the items that were listed, as rows of a raw log.

    An item that was listed is a row with the action `shown` and the label 0, at the time of its list;
    whoever trains decides what it means that nothing came of it.  With `shown` rows have a `propensity`:
    the probability with which an item that was tried out was put there, null for all others.
    """
    for _, event, _ in store.events(after):
        if event.action != SHOWN or shown:
            yield {name: getattr(event, name) for name in COLUMNS} | ({"propensity": None} if shown else {})
    for _, listed in store.shown(after) if shown else ():
        if listed.shadow:  # nobody saw it
            continue
        for item in listed.items:
            yield {
                "visitor": listed.visitor,
                "item": item,
                "time": listed.time,
                "action": SHOWN,
                "label": 0,
                "request": listed.request,
                "propensity": listed.explored.get(item),
            }


def export(store: Store | Reader, path: Path, *, after: int = 0, shown: bool = False) -> dict[str, int]:
    """Write rows as JSON lines, whole or not at all; return how many, and the place to go on `after`.

    Args:
        store: The store.
        path: The file.
        after: Leave out what stands at or before this place of the log.
        shown: Write what was listed, too.
    """
    last, number = store.last(), 0
    with whole_file(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        for row in rows(store, after=after, shown=shown):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            number += 1
    return {"rows": number, "last": last}


def without_erased(log: SessionLog, tombstones: Sequence[Tombstone]) -> SessionLog:
    """Return a log without what its users did before they were erased.

    >>> log = SessionLog.from_lists([[["tea"]]], times=[[[5]]])
    >>> len(without_erased(log, [Tombstone(digest_of("0"), 9)]))
    0
    """
    erased = {stone.digest: stone.erased_at for stone in tombstones}
    never = int(np.iinfo(np.int64).min)
    until = np.array([erased.get(digest_of(str(user)), never) for user in log.users.tolist()], np.int64)
    of_event = np.repeat(until, np.diff(log.event_offsets))
    return log.events(log.times > of_event)
