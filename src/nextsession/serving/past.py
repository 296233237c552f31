"""What visitors did before: a prepared log beside the events of the server, joined at a place without gap or overlap.

```
 prepared log (yesterday)   all that the log of the server held up to a place, and what was before it
 record (live)              everything that arrived after that place, whatever its time
```

The nightly log may be late or long: an event is read from one side or the other by its place in the
log of the server, never by its time, so one that arrives late is not lost and none counts twice.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.serving.catalogue import Catalogue
from nextsession.serving.events import SHOWN, Kept


class Past:
    """A log of the past, read by visitor."""

    def __init__(self, log: SessionLog, *, after: int | None = None) -> None:
        """Take a log.

        Args:
            log: Its users are the visitors.
            after: It holds what the log of the server held up to this place (`nextsession export` says it).
                None: it holds everything up to its own last event.
        """
        self._log = log
        self._rows = Catalogue(Vocabulary(log.users))
        self._after = after
        self._until = int(log.times.max()) if log.n_events else -1

    def __len__(self) -> int:
        """Return the number of visitors."""
        return len(self._log)

    def is_new(self, event: Kept) -> bool:
        """Say whether an event of a record is not in the log."""
        return event.time > self._until if self._after is None else event.seq > self._after

    def joined(self, standing: Mapping[str, int | None], live: Iterable[Kept], keep: int) -> tuple[Kept, ...]:
        """Return the latest events of a visitor, from both sides, oldest first.

        Args:
            standing: The ids that the visitor goes by, each with when it was erased, if it was.
            live: The record.
            keep: How many.
        """
        found = [event for event in live if self.is_new(event)]
        for visitor, erased_at in standing.items():
            found += self._events(visitor, erased_at, keep)
        return tuple(sorted(found, key=lambda event: (event.time, event.seq))[-keep:])

    def _events(self, visitor: str, erased_at: int | None, keep: int) -> list[Kept]:
        (row,) = self._rows.numbers([visitor])
        if row < 0:
            return []
        log = self._log
        first, last = int(log.event_offsets[row]), int(log.event_offsets[row + 1])
        places = np.arange(max(first, last - keep), last)
        times, items = log.times[places].tolist(), log.vocabulary.decode(log.items[places]).tolist()
        labels = log.labels[places].tolist()
        actions = ["click"] * len(places)
        if log.actions is not None:
            actions = [log.action_names[code] for code in log.actions[places].tolist()]
        return [
            Kept(time, i - last, -1 - i, str(item), action, label)
            for i, time, item, action, label in zip(
                range(first, last)[-len(places) :] if len(places) else (), times, items, actions, labels, strict=True
            )
            if action != SHOWN and (erased_at is None or time > erased_at)
        ]
