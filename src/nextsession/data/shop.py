"""A simulated shop: visitors with tastes and shifting wishes, a catalogue that comes and goes.

The shop *shows* pages, filled by a policy of its own, to visitors who look at the top more than at
the bottom; the log holds what was clicked (label 1) and what was shown in vain (label 0).  Any size,
in a stream: users are independent of one another given the seed, so memory does not grow with them.

    shop = Shop(users=500)
    log = shop.log()                              # small: a SessionLog
    shop.write(Path("shop.parquet"))              # large: a stream to a file
    prepare(shop.batches(), out, form=FORM, sessions=SESSIONS, filters=Filters(), item_table=shop.item_table)

What is true of this world, and so how well anybody *could* predict it, is known: see `nextsession.oracle`.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nextsession.data.format import Columns, EventBatch, Labels, LogFormat, SessionRule
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.shop_visits import Events, States, live
from nextsession.data.shop_world import Page, ShopSettings, World, build
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError
from nextsession.files import whole_file
from nextsession.progress import Progress, silent

__all__ = ["FORM", "SESSIONS", "Page", "Shop", "ShopSettings"]

FORM = LogFormat(
    kind="parquet",
    columns=Columns(session="session_id", label="label", position="position"),
    time_unit="ms",
    labels=Labels(at_least=1),
)
"""How `Shop.batches` and the files of `Shop.write` are to be read."""

SESSIONS = SessionRule(by="id")
"""Where the visits of the shop begin and end; a gap of 30 minutes finds the same ones."""

_STYLES = (
    "Blue", "Oak", "Linen", "Copper", "Red", "Little", "Green", "Marble",
    "Woollen", "Silver", "Striped", "Tall", "Ivory", "Folding", "Round", "Black",
)  # fmt: skip
_THINGS = (
    "kettle", "lamp", "chair", "notebook", "rug", "teapot", "jumper", "clock", "basket", "mirror", "scarf",
    "bicycle", "radio", "vase", "pillow", "backpack", "watch", "novel", "puzzle", "apron", "candle", "camera",
    "drum", "kite", "ladder", "mug", "oven", "piano", "quilt", "racket", "sofa", "tent",
)  # fmt: skip


class Shop:
    """The shop, its catalogue and its visitors.

    >>> shop = Shop(users=3, items=40, seed=1)
    >>> shop.log()
    SessionLog(3 users, 29 sessions, 487 events, 40 items)
    """

    def __init__(self, settings: ShopSettings | None = None, /, **values: Any) -> None:
        """Take ready settings, or settings by name: `Shop(users=500)`.

        Raises:
            ConfigError: A setting is unknown or out of range.
        """
        self.settings = ShopSettings.read(values, "shop") if settings is None else settings

    @cached_property
    def world(self) -> World:
        """The truth about items and policy, drawn at the first use."""
        return build(self.settings)

    # -- what happened --------------------------------------------------------------------------

    def blocks(self, rows: int = 500_000) -> Iterator[tuple[Events, States]]:
        """Give the events of users `0, 1, 2, ...`, and the truth behind them, in arrays of at most about `rows`.

        The same events come whatever the block size; a user is never cut in two.
        """
        user = 0
        while user < self.settings.users:
            events, states = Events.room(rows), States.room(rows)
            following, n, m = live(self.world, user, self.settings.users, events, states)
            if following == user:  # not even one user fits
                rows *= 2
                continue
            user = following
            if n:
                yield Events._make(column[:n] for column in events), States._make(column[:m] for column in states)

    def batches(self, rows: int = 500_000, *, progress: Progress = silent) -> Iterator[EventBatch]:
        """Give the log as frames, ready for `prepare`; sorted by user, not by time.

        Columns: `user_id`, `session_id`, `item_id`, `timestamp` (ms), `label` (1 clicked, 0 shown in
        vain), `position` (place on the page, from 1).  All events of a page carry its instant.
        """
        first = 1
        for events, _ in self.blocks(rows):
            frame = pl.DataFrame(
                {
                    "user_id": events.user,
                    "session_id": events.session,
                    "item_id": events.item,
                    "timestamp": events.time,
                    "label": events.label,
                    "position": events.position,
                }
            )
            yield EventBatch(frame, "simulated shop", first)
            first += len(frame)
            progress("simulating users", int(events.user[-1]) + 1, self.settings.users)

    def log(self) -> SessionLog:
        """Return the whole log, with ignored events, positions and the item table; for logs that fit in memory.

        Raises:
            DataError: No visitor came within the span.
        """
        blocks = [events for events, _ in self.blocks()]
        if not blocks:
            raise DataError("No visitor came to the simulated shop; it needs more users or a longer span.")
        everything = Events._make(np.concatenate(columns) for columns in zip(*blocks, strict=True))
        session_offsets = _bounds(everything.session)
        of_session = everything.user[session_offsets[:-1]]
        user_offsets = _bounds(of_session)
        vocabulary = Vocabulary(np.arange(self.settings.items))
        return SessionLog(
            items=everything.item.astype(np.int32),
            times=everything.time,
            session_offsets=session_offsets,
            user_offsets=user_offsets,
            vocabulary=vocabulary,
            labels=everything.label,
            features={"position": everything.position},
            users=of_session[user_offsets[:-1]],
            item_table=self.item_table(vocabulary),
        )

    def write(self, path: Path, *, progress: Progress = silent) -> int:
        """Write the log to a Parquet file in a stream, whole or not at all; return the number of events."""
        events = 0
        with whole_file(path) as scratch:
            writer = None
            try:
                for batch in self.batches(progress=progress):
                    table = batch.frame.to_arrow()
                    writer = writer or pq.ParquetWriter(scratch, table.schema, compression="zstd")
                    writer.write_table(table)
                    events += len(table)
                if writer is None:
                    raise DataError("No visitor came to the simulated shop; it needs more users or a longer span.")
            finally:
                if writer is not None:
                    writer.close()
        return events

    # -- what is sold ---------------------------------------------------------------------------

    def item_table(self, vocabulary: Vocabulary) -> ItemTable:
        """Return category, style and title of the items of a vocabulary of shop ids.

        >>> Shop(items=3).item_table(Vocabulary([0, 1, 2])).titles[1]
        'Blue radio 1'
        """
        ids = vocabulary.ids.astype(np.int64)
        cell = self.world.cell[ids]
        styles, categories = self.settings.styles, self.settings.categories
        things = tuple(_name(_THINGS, c) for c in range(categories))
        looks = tuple(_name(_STYLES, s) for s in range(styles))
        titles = [f"{looks[k % styles]} {things[k // styles]} {i}" for k, i in zip(cell, ids.tolist(), strict=True)]
        each = offsets_of(np.ones(len(ids)))
        features = {
            "category": ItemFeature(each, (cell // styles).astype(np.int32), things),
            "style": ItemFeature(each, (cell % styles).astype(np.int32), looks),
        }
        return ItemTable(features, np.array(titles, dtype=object))


def _bounds(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where runs of equal ids begin, and where the last one ends."""
    return np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1, [len(ids)]]).astype(np.int64)


def _name(words: tuple[str, ...], number: int) -> str:
    """Name the kind with this number; when the words run out they come again, numbered."""
    word, again = words[number % len(words)], number // len(words)
    return word if again == 0 else f"{word}-{again + 1}"
