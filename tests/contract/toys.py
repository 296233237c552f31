"""A healthy toy model, and one sick sister for each way of breaking a promise.

They live in a module of their own, so that another process can load them.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BeforeValidator, ConfigDict

from nextsession.config import Settings
from nextsession.errors import DataError
from nextsession.recommender import Recommendations, Recommender
from nextsession.scores import DenseScores

FAULTS: list[tuple[str, type[Recommender]]] = []


def breaks(*promises: str) -> Callable[[type[Recommender]], type[Recommender]]:
    def note(toy: type[Recommender]) -> type[Recommender]:
        FAULTS.extend((promise, toy) for promise in promises)
        return toy

    return note


class ToySettings(Settings):
    """Settings of `Toy`."""

    weight: float = 1.0
    """What one step counts."""


class Toy(Recommender[ToySettings]):
    """Counts which item comes after which; popularity breaks ties."""

    name = "toys"

    def _fit(self, log, runtime):
        self.steps_ = np.zeros((log.n_items, log.n_items), np.float32)
        self.counts_ = np.zeros(log.n_items, np.float32)
        self._count(log)

    def _update(self, log, runtime):
        grown = log.n_items - len(self.counts_)
        self.steps_ = np.pad(self.steps_, (0, grown))
        self.counts_ = np.pad(self.counts_, (0, grown))
        self._count(log)

    def _count(self, log):
        follows = log.session_of_event[1:] == log.session_of_event[:-1]
        np.add.at(self.steps_, (log.items[:-1][follows], log.items[1:][follows]), np.float32(self.config.weight))
        self.counts_ += np.bincount(log.items, minlength=log.n_items).astype(np.float32)

    def _score(self, histories, asked_at):
        scores = np.tile(self.counts_ / 1000, (len(histories), 1))
        some = np.diff(histories.event_offsets) > 0
        scores[some] += self.steps_[histories.items[histories.event_offsets[1:][some] - 1]]
        return DenseScores(np.where(scores > 0, scores, np.float32(-np.inf)))

    @classmethod
    def examples(cls):
        return [{}, {"weight": 0.5}]


# -- settings -----------------------------------------------------------------------------------


class DriftingSettings(Settings):
    """Settings that change whenever they are read."""

    weight: Annotated[float, BeforeValidator(lambda x: x + 1)] = 1.0
    """What one step counts."""


@breaks("settings_round_trip")
class Drifting(Toy):
    """Reads its settings differently each time."""

    settings_class = DriftingSettings


class BareSettings(Settings):
    """Settings without a word on one of them."""

    weight: float = 1.0


@breaks("settings_documented")
class Bare(Toy):
    """Does not say what its setting means."""

    settings_class = BareSettings


class LooseSettings(ToySettings):
    """Settings that take any name and may be changed."""

    model_config = ConfigDict(extra="ignore", frozen=False)


@breaks("settings_refused", "settings_frozen")
class Loose(Toy):
    """Takes whatever it is given."""

    settings_class = LooseSettings


@breaks("documented")
class Silent(Toy):
    __doc__ = None


@breaks("documented")
class Misnamed(Toy):
    """Goes by a name that is not its module's."""

    name = "toy"


# -- learning -----------------------------------------------------------------------------------


@breaks("not_fitted")
class Unready(Toy):
    """Does not notice that it has learnt nothing."""

    def _check_fitted(self):
        pass


@breaks("empty_log")
class Undemanding(Toy):
    """Learns from nothing."""

    def fit(self, log, **options):
        try:
            return super().fit(log, **options)
        except DataError:
            return self


@breaks("smallest_logs")
class NeedsTwo(Toy):
    """Divides by the number of other items."""

    def _score(self, histories, asked_at):
        with np.errstate(all="ignore"):
            return DenseScores(super()._score(histories, asked_at).values / np.float32(len(self.vocabulary_) - 1))


@breaks("smallest_logs")
class NeedsSteps(Toy):
    """Looks for the commonest step though there may be none."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.steps_ /= self.steps_[self.steps_ > 0].max()


@breaks("fit_returns_self")
class Ungiving(Toy):
    """Returns nothing from fit."""

    def fit(self, log, **options):
        super().fit(log, **options)


@breaks("log_spared")
class Sorting(Toy):
    """Sorts the log it is lent."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        log.items.sort()


@breaks("forgets")
class Brooding(Toy):
    """Goes on counting where it stopped."""

    old = 0.0

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.steps_ += self.old
        self.old = self.steps_


@breaks("log_let_go")
class Hoarding(Toy):
    """Keeps the log."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.log = log


@breaks("random_state_kept")
class Seeding(Toy):
    """Seeds everybody's generator."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        np.random.seed(runtime.seed)


@breaks("seed")
class SecretlyRandom(Toy):
    """Draws numbers and does not say so."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.counts_ += np.random.default_rng(runtime.seed).random(log.n_items).astype(np.float32)


@breaks("seed")
class Unseeded(Toy):
    """Draws numbers from nowhere."""

    stochastic: ClassVar[bool] = True

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.counts_ += np.random.default_rng().random(log.n_items).astype(np.float32)


@breaks("seed")
class DeafToSeed(Toy):
    """Claims to draw numbers, always the same."""

    stochastic: ClassVar[bool] = True


@breaks("order_of_users")
class FirstServed(Toy):
    """Holds the first user dearest."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.counts_[log.items[: log.event_offsets[1]]] += 1


@breaks("user_ids")
class NameReader(Toy):
    """Counts users whose ids are text twice."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.counts_ *= 2 if log.users.dtype == object else 1


@breaks("item_ids")
class IdReader(Toy):
    """Takes integer ids for weights."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        if log.vocabulary.ids.dtype == np.int64:
            self.counts_ += log.vocabulary.ids.astype(np.float32)


@breaks("ignored_unread")
class Undiscerning(Toy):
    """Learns from ignored events behind the back of the base class."""

    def fit(self, log, **options):
        super().fit(log, **options)
        self._count(log)
        return self


@breaks("learns")
class Backwards(Toy):
    """Reads sequences backwards."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.steps_ = self.steps_.T.copy()


@breaks("learns")
class AcrossSessions(Toy):
    """Made for next sessions, and offers what comes next in this one."""

    predicts = "next-session"

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.counts_ *= 0


@breaks("order_read")
class SecretlyOrdered(Toy):
    """Says that order means nothing to it."""

    ordered: ClassVar[bool] = False


@breaks("clock")
class SecretlyTimed(Toy):
    """Looks at the clock and does not say so."""

    def _score(self, histories, asked_at):
        scores = super()._score(histories, asked_at)
        scores.values[:, 1] += (asked_at % 100_000_007) / 1e6
        return scores


@breaks("clock")
class Clairvoyant(Toy):
    """Says that it reads the clock, and counts what comes after."""

    reads_clock: ClassVar[bool] = True


# -- answers ------------------------------------------------------------------------------------


class Altered(Toy):
    """Gives another answer than the base class would."""

    def recommend(self, histories, k=20, **options):
        answer = super().recommend(histories, k, **options)
        items, scores = self._alter(answer.items, answer.scores)
        return Recommendations(items, scores, answer.vocabulary)


@breaks("lists", "rank")
class WorstFirst(Altered):
    """Lists the best last."""

    def _alter(self, items, scores):
        return items[:, ::-1], scores[:, ::-1]


@breaks("lists")
class Repeating(Altered):
    """Lists its favourite twice."""

    def _alter(self, items, scores):
        items = items.copy()
        items[:, 1:2] = items[:, :1]
        return items, scores


@breaks("more_than_there_is")
class Curt(Altered):
    """Never lists more than five."""

    def _alter(self, items, scores):
        items, scores = items.copy(), scores.copy()
        items[:, 5:], scores[:, 5:] = -1, -np.inf
        return items, scores


@breaks("no_question")
class Talkative(Altered):
    """Answers though nobody asked."""

    def _alter(self, items, scores):
        return (items, scores) if len(items) else (np.zeros((1, items.shape[1]), np.int32), scores)


@breaks("scores_below_infinity", "lists")
class NotNumbers(Toy):
    """Says NaN of items that it cannot score."""

    def _score(self, histories, asked_at):
        values = super()._score(histories, asked_at).values
        return DenseScores(np.where(values == -np.inf, np.float32(np.nan), values))


@breaks("scores_below_infinity")
class DoublePrecision(Toy):
    """Scores in float64."""

    def _score(self, histories, asked_at):
        return DenseScores(super()._score(histories, asked_at).values.astype(np.float64))


@breaks("strange_histories")
class NeedsHistory(Toy):
    """Takes the last item of every row, be there one or not: an empty row reads its neighbour, or fails."""

    def _score(self, histories, asked_at):
        last = histories.items[histories.event_offsets[1:] - 1]
        if np.any(np.diff(histories.event_offsets) == 0):
            raise IndexError("no last item")
        return DenseScores(self.steps_[last] + self.counts_)


@breaks("company")
class NeighbourReader(Toy):
    """Takes the last item before the end of each row, which for an empty row is its neighbour's."""

    def _score(self, histories, asked_at):
        if histories.n_events == 0:
            return super()._score(histories, asked_at)
        return DenseScores(self.steps_[histories.items[histories.event_offsets[1:] - 1]] + self.counts_)


@breaks("company")
class Conforming(Toy):
    """Compares every question with the others asked at once."""

    def _score(self, histories, asked_at):
        values = super()._score(histories, asked_at).values
        return DenseScores(values - values[:, 1].mean(dtype=np.float32))


@breaks("unknown_items")
class UnknownIsFirst(Toy):
    """Takes an unknown item for the item of code 0."""

    def _seen(self, histories):
        codes = np.maximum(self.vocabulary_.encode(histories.vocabulary.ids), 0)
        return replace(histories, items=codes[histories.items], vocabulary=self.vocabulary_)


@breaks("exclude_history", "exclude_session")
class Insistent(Toy):
    """Recommends what it was told to leave out."""

    def recommend(self, histories, k=20, *, exclude="nothing", **options):
        return super().recommend(histories, k, **options)


@breaks("exclude_session")
class Overzealous(Toy):
    """Leaves out the whole history when only the session was to go."""

    def recommend(self, histories, k=20, *, exclude="nothing", **options):
        return super().recommend(histories, k, exclude="nothing" if exclude == "nothing" else "history", **options)


@breaks("candidates")
class Unbound(Toy):
    """Lists items that are no candidates."""

    def recommend(self, histories, k=20, *, candidates=None, **options):
        return super().recommend(histories, k, **options)


@breaks("no_trace")
class GivesItself(Toy):
    """Hands out an array of its own as scores, which the base class then changes."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.table_ = np.tile(self.counts_, (4096, 1))

    def _score(self, histories, asked_at):
        return DenseScores(self.table_[: len(histories)])


@breaks("no_trace")
class Remembering(Toy):
    """Counts its own answers."""

    def _score(self, histories, asked_at):
        self.counts_[0] += 1
        return super()._score(histories, asked_at)


class TwoFaced(DenseScores):
    """Scores whose lists are not those of the matrix."""

    def answer(self, k, targets, limits):
        return DenseScores(self.values[:, ::-1].copy()).answer(k, targets, limits)


@breaks("rank")
class Inconsistent(Toy):
    """Ranks by other scores than it shows."""

    def _score(self, histories, asked_at):
        return TwoFaced(super()._score(histories, asked_at).values)


@breaks("threads")
class OneScratch(Toy):
    """Keeps the question in itself while it thinks."""

    def _score(self, histories, asked_at):
        self.question = histories
        time.sleep(0.01)
        scores = super()._score(self.question, asked_at)
        return DenseScores(scores.values[np.arange(len(histories)) % len(scores)])


# -- updating and keeping -----------------------------------------------------------------------


@breaks("update_refused")
class Pretending(Toy):
    """Cannot learn on and does as if it could."""

    can_update = False

    def update(self, log, **options):
        self._check_fitted()
        return self


@breaks("update_with_nothing")
class Restless(Toy):
    """Forgets a little whenever it learns on, even from nothing."""

    def update(self, log, **options):
        self._check_fitted()
        self.counts_ *= np.float32(0.9)
        return super().update(log, **options)


@breaks("update_knows_all")
class Stunted(Toy):
    """Does not grow with its vocabulary."""

    def _update(self, log, runtime):
        pass


@breaks("update_knows_all")
class Numb(Toy):
    """Grows, but learns nothing of new items."""

    def _count(self, log):
        if not hasattr(self, "full_"):
            self.full_ = np.ones(1)
            super()._count(log)


@breaks("update_spares_others")
class Shared(Toy):
    """Keeps its counts where all its kind keep theirs."""

    everyone: ClassVar[dict] = {}

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.everyone["steps"] = self.steps_

    def _score(self, histories, asked_at):
        self.steps_ = self.everyone["steps"]
        return super()._score(histories, asked_at)

    def _count(self, log):
        super()._count(log)
        self.everyone["steps"] = self.steps_


@breaks("told_of_later_events")
class Forward(Toy):
    """Says that it looks back, and counts whatever it is told."""

    reads_clock: ClassVar[bool] = True


@breaks("plain_arrays")
class Pickling(Toy):
    """Learns Python objects."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.names_ = log.vocabulary.ids


@breaks("saved")
class Lossy(Toy):
    """Loses something on the way to the disk."""

    def _restore(self, arrays):
        super()._restore(arrays)
        self.steps_ = self.steps_ * 0


@breaks("saved")
class Hidden(Toy):
    """Learns something that is not among its arrays."""

    def _fit(self, log, runtime):
        super()._fit(log, runtime)
        self.extra = log.n_events

    def _score(self, histories, asked_at):
        scores = super()._score(histories, asked_at)
        scores.values += self.extra
        return scores


class Excused(Backwards):
    """Reads backwards, and says so."""

    exemptions: ClassVar[dict[str, str]] = {"learns": "it reads from right to left"}
