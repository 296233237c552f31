"""A model that answers requests: loaded, checked, warmed, and never changed afterwards."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.data.items import ItemTable
from nextsession.data.log import SessionLog
from nextsession.data.storage import read_item_table
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError
from nextsession.golden import check_golden
from nextsession.index.contract import ItemIndex
from nextsession.index.kept import USUAL, load_index, usual_of, vectors_of
from nextsession.popularity import read_popularity
from nextsession.recommender import Recommender
from nextsession.registry import load
from nextsession.runtime.kept import load_runtime
from nextsession.scores import DotScores, Limits, Targets, TopK, tie_keys
from nextsession.serving.catalogue import Catalogue
from nextsession.serving.events import Kept
from nextsession.serving.histories import History, limits_of_all, log_of_all

log = logging.getLogger(__name__)

LARGE = 100_000
"""Items from which on looking at every one takes more than a millisecond."""
MANIFEST = "manifest.json"
Table: TypeAlias = Callable[[Vocabulary], ItemTable | None]
"""Says what is known of the items of a vocabulary, in its order; None: nothing."""
ITEM_TABLE = "item_table.arrow"


@dataclass(frozen=True, eq=False)
class Served:
    """One version of a model with its items; a request is answered by exactly one of these."""

    model: Recommender[Any]
    catalogue: Catalogue
    version: str
    """Twelve digits of the hash of the manifest, the same wherever the artifact is loaded.

    After a `+` the place in the log of the server up to which the model was told what happened since.
    """
    place: str
    """Where it was loaded from, as the caller wrote it."""
    gap: int
    """The silence (ms) that ends a session."""
    usual: tuple[str, ...] = field(repr=False)
    """What the model says to somebody of whom nothing is known, and after it what was wanted most when it learnt."""
    asked: int
    """Golden requests that were answered before it was served."""
    index: ItemIndex | None
    """Finds the best items without a product with every one; None: all are looked at."""
    known_usual: TopK = field(repr=False)
    """What the model says to nobody known, as codes and scores, to be looked through again."""
    popularity: NDArray[np.int64] | None = field(repr=False)
    """How often each item was wanted in what the model learnt from, `(V,)`; None: nobody noted it."""
    indexable: bool
    """Does the model score by products of vectors, so that an index can find items for it?"""
    learnt_to: int | None = None
    """The place in the log of the server up to which the model had learnt when it was saved; None: it goes by time."""
    before: "Served | None" = field(default=None, repr=False)
    """What was loaded, if the model was told what happened since."""

    @property
    def artifact(self) -> str:
        """The version of what was loaded, whatever it was told since."""
        return self.version.partition("+")[0]

    @property
    def loaded(self) -> "Served":
        """What was loaded, before it was told anything."""
        return self.before or self

    @property
    def reads_moment(self) -> bool:
        """Can the instant of the question change the answer?"""
        return self.model.reads_clock or getattr(self.model.config, "moment", None) is not None

    def history(self, events: tuple[Kept, ...]) -> History:
        """Return events, oldest first, as a history for this model."""
        return History(self.model, self.catalogue, events, self.gap)

    def top(self, history: History, now: int, k: int, limits: Limits) -> TopK:
        """Return the best `k` items of one history: what `Recommender.recommend` lists for it.

        With an index, it lists what the index finds of that.
        """
        return self.tops([(history, now, k, limits)])[0]

    def tops(self, questions: Sequence[tuple[History, int, int, Limits]]) -> list[TopK]:
        """Return what `top` does of each question, which all may get the same items: their filters are the same.

        One pass over the items serves all of them.
        """
        found: list[TopK | None] = [None] * len(questions)
        asked = []
        for place, (history, _, k, limits) in enumerate(questions):
            if not history.given and not self.reads_moment:
                found[place] = self._usual(k, limits)
            if found[place] is None:
                asked.append(place)
        if asked:
            some = [questions[place] for place in asked]
            instants = np.array([max(now, history.asked_after) for history, now, _, _ in some], np.int64)
            scores = self.model.scores(log_of_all([history for history, _, _, _ in some]), asked_at=instants)
            k, limits = max(k for _, _, k, _ in some), limits_of_all([limits for _, _, _, limits in some])
            if self.index is not None and isinstance(scores, DotScores):
                top = self.index.search(scores.queries, k, limits)
            else:
                top = scores.top(k, limits)
            for row, place in enumerate(asked):
                wanted = questions[place][2]
                found[place] = TopK(top.items[row : row + 1, :wanted], top.scores[row : row + 1, :wanted])
        return [one for one in found if one is not None]

    def _usual(self, k: int, limits: Limits) -> TopK | None:
        """Return what is left of the usual list; None if that is too little to tell."""
        codes = self.known_usual.items[0]
        left = ~np.isin(codes, limits.barred)
        if limits.allowed is not None:
            left &= limits.allowed[codes]
        places = np.flatnonzero(left)[:k]
        if len(places) < k and len(codes) == USUAL:
            return None
        return TopK(codes[None, places], self.known_usual.scores[:, places])

    def reasons(
        self,
        history: History,
        now: int,
        codes: NDArray[np.int32],
        limits: Limits,
        most: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Leave out the latest `most` events one at a time, and see where the items of a list would stand.

        Returns:
            The places of the events in the history, `(n,)`; and the place of each item, from 1, with
            all events and without each, `(1 + n, len(codes))`; 0 where it would not be listed.
        """
        given = history.given
        tried = np.array(given[-most:], np.int64)
        rows = [given, *([other for other in given if other != place] for place in tried.tolist())]
        instants = np.full(len(rows), max(now, history.asked_after), np.int64)
        scores = self.model.scores(history.log_of(rows), asked_at=instants)
        targets = Targets(np.arange(len(rows) + 1) * len(codes), np.tile(codes, len(rows)).astype(np.int32))
        barred = np.tile(limits.barred, len(rows))
        all_rows = Limits(np.arange(len(rows) + 1) * len(limits.barred), barred, limits.allowed)
        counts = scores.ranks(targets, all_rows)
        places = np.where(counts.equal > 0, counts.greater + 1, 0)
        return tried, places.reshape(len(rows), len(codes))


def serve(place: str | Path, *, gap: int, table: Table | None = None, learnt_to: int | None = None) -> Served:
    """Load an artifact, without torch if it was compiled; see that it answers as it did when it was saved, and warm it.

    Args:
        place: The directory that `save` wrote.
        gap: The silence (ms) that ends a session.
        table: Says what is known of the items of a vocabulary; if nothing, what lies beside the model is read.
        learnt_to: The place in the log of the server up to which it has learnt; None: it goes by time.

    Raises:
        ArtifactError: It is damaged, missing or too new, or may not be read; or it answers nothing, or otherwise than
            when it was saved.
        NextSessionError: It is of a model that cannot be loaded here.
    """
    try:
        return _opened(Path(place), str(place), gap, table, learnt_to)
    except OSError as error:
        raise ArtifactError(f"{error.filename or place} cannot be read: {error.strerror or error}.") from error


def _opened(folder: Path, place: str, gap: int, table: Table | None, learnt_to: int | None) -> Served:
    compiled = load_runtime(folder)
    model = load(folder) if compiled is None else compiled
    index = load_index(model, folder)
    asked = check_golden(model, folder, None if index is None else index.search)
    if index is None and len(model.vocabulary_) > LARGE and _indexable(model):
        log.warning("%s has %d items and no index; `nextsession index` makes one.", place, len(model.vocabulary_))
    known = None if table is None else table(model.vocabulary_)
    if known is None and (folder / ITEM_TABLE).is_file():
        known = read_item_table(folder / ITEM_TABLE)
    return prepared(
        model,
        version=version_of(folder),
        place=place,
        gap=gap,
        table=known,
        asked=asked,
        index=index,
        popularity=read_popularity(folder, len(model.vocabulary_)),
        learnt_to=learnt_to,
    )


def prepared(
    model: Recommender[Any],
    *,
    gap: int,
    version: str = "memory",
    place: str = "",
    table: ItemTable | None = None,
    asked: int = 0,
    index: ItemIndex | None = None,
    popularity: NDArray[np.int64] | None = None,
    learnt_to: int | None = None,
    before: Served | None = None,
) -> Served:
    """Make a fitted model ready to be served, and warm it.

    Raises:
        ArtifactError: It fails when asked, or has nothing to say at all.
    """
    catalogue = Catalogue(model.vocabulary_, table)
    try:
        usual = _warmed(model, index)
    except Exception as error:  # whatever it does, it must not be let in
        raise ArtifactError(f"{place or model.name} was loaded, but fails when asked: {error}") from error
    texts = catalogue.texts(usual.items[0])
    if popularity is not None and len(texts) < USUAL:  # models of neighbours have nothing to say to nobody
        texts = list(dict.fromkeys([*texts, *catalogue.texts(_most(popularity))]))[:USUAL]
    return Served(
        model,
        catalogue,
        version,
        place,
        gap,
        tuple(texts),
        asked,
        index,
        usual,
        popularity,
        index is not None or _indexable(model),
        learnt_to,
        before,
    )


def version_of(folder: Path) -> str:
    """Return the version of the model that lies in a folder: twelve digits of the hash of its manifest."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:12]


def _most(popularity: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the codes of the items wanted most, the most first; ties as in all lists."""
    some = np.flatnonzero(popularity)
    order = np.lexsort((tie_keys(len(popularity))[some], -popularity[some]))
    return some[order[:USUAL]].astype(np.int32)


def _indexable(model: Recommender[Any]) -> bool:
    vectors = vectors_of(model)
    return vectors is not None and vectors.shape[1] > 1


def _warmed(model: Recommender[Any], index: ItemIndex | None) -> TopK:
    """Ask a few questions of the kinds that come, so that what is compiled at the first is; return the usual list.

    Raises:
        ArtifactError: Not one item is listed for any of them.
    """
    ids = model.vocabulary_.ids
    if not len(ids):
        raise ArtifactError(f"{model.name} knows no item at all; fit it on a log with events.")
    some = ids[np.linspace(0, len(ids) - 1, min(len(ids), 50)).astype(np.int64)].tolist()
    histories = SessionLog.from_lists([[some[:1]], [some[-1:]], [some, some[:2]]], vocabulary=model.vocabulary_)
    usual = usual_of(model) if index is None or index.usual is None else index.usual
    if index is None:
        found = model.recommend(histories, min(USUAL, len(ids)), exclude="session")
        model.recommend(histories.take([2]), 20)
        listed = usual.items.size + int((found.items >= 0).sum())
    else:
        scores = model.scores(histories)
        listed = usual.items.size
        if isinstance(scores, DotScores):
            listed += int((index.search(scores.queries, 20).items >= 0).sum())
    for name in ids[:: max(1, len(ids) // 1000)].tolist() if not listed else ():
        listed += len(next(iter(model.recommend(SessionLog.from_lists([[[name]]], vocabulary=model.vocabulary_), 1))))
    if not listed:
        raise ArtifactError(f"{model.name} has nothing to say, whatever it is asked; fit it again.")
    return usual
