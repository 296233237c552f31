"""What is put to a model under test: the model in one variant, a small log, and questions.

The log is small enough to read and holds what logs hold: repeats, sessions of one event, ignored
events, an item nobody ever touched, users of many sessions.  No two events share an instant, so
that nothing may depend on the order of the rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.config import Runtime
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ModelError
from nextsession.recommender import Recommender

HOUR = 3_600_000
START = 1_700_000_000_000  # ms; some day in 2023
N_ITEMS = 18
MARKER = "never touched"
"""An item of the vocabulary that occurs nowhere."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model class in one of its variants."""

    model_class: type[Recommender[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Write the name and the settings as a call."""
        return f"{self.model_class.name}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"

    def new(self) -> Recommender[Any]:
        """Return a model that has learnt nothing."""
        return self.model_class(**self.settings)

    def fit(self, log: SessionLog, seed: int = 0) -> Recommender[Any]:
        """Return a model that has learnt from `log`."""
        return self.new().fit(log, runtime=Runtime(seed=seed))

    @cached_property
    def fitted(self) -> Recommender[Any]:
        """A model fitted on `training_log()`, for checks that leave it as it is."""
        return self.fit(training_log())


def subjects(model_class: type[Recommender[Any]]) -> list[Subject]:
    """Return the model in each variant that its `examples` name."""
    return [Subject(model_class, settings) for settings in model_class.examples()]


def expect(held: object, found: str) -> None:
    """Raise `ModelError` with what was found unless the promise held."""
    if not held:
        raise ModelError(found)


def training_log(*, seed: int = 0, users: int = 30, integer_ids: bool = False) -> SessionLog:
    """Return the log that models under test learn from: one event in six was shown and ignored."""
    vocabulary = Vocabulary(np.arange(N_ITEMS + 1) * 7) if integer_ids else _vocabulary()
    log = walks(vocabulary, seed=seed, users=users, start=START)
    return replace(log, labels=(np.random.default_rng(seed + 1).random(log.n_events) > 1 / 6).astype(np.int8))


def wanted_log(*, seed: int = 0, users: int = 30) -> SessionLog:
    """Return a training log without ignored events."""
    return walks(_vocabulary(), seed=seed, users=users, start=START)


def questions() -> SessionLog:
    """Return ten histories later than the training log, one of them empty, some with items that it does not know.

    The codes are those of another vocabulary, as in life.
    """
    ids = [f"item {i:02}" for i in reversed(range(N_ITEMS))]
    vocabulary = Vocabulary(np.array(["unknown", *ids], dtype=object))
    log = walks(vocabulary, seed=5, users=10, start=START + 1000 * HOUR)
    return log.sessions(log.user_of_session != 4, keep_users=True)


def walks(vocabulary: Vocabulary, *, seed: int, users: int, start: int) -> SessionLog:
    """Return users who mostly step from one item to one of the next; events a minute apart, no two at once."""
    rng = np.random.default_rng(seed)
    per_user = rng.integers(1, 5, users)
    lengths = rng.integers(1, 7, per_user.sum())
    slots = rng.permutation(len(lengths))
    times, items = [], []
    for first, last in zip(offsets_of(per_user)[:-1], offsets_of(per_user)[1:], strict=True):
        for session, slot in zip(range(first, last), np.sort(slots[first:last]), strict=True):
            steps = rng.integers(0, 4, lengths[session])
            items.append((rng.integers(N_ITEMS) + np.cumsum(steps)) % N_ITEMS)
            times.append(start + slot * HOUR + 60_000 * np.arange(lengths[session]))
    return SessionLog(
        items=np.concatenate(items).astype(np.int32),
        times=np.concatenate(times).astype(np.int64),
        session_offsets=offsets_of(lengths),
        user_offsets=offsets_of(per_user),
        vocabulary=vocabulary,
    )


def matrix(model: Recommender[Any], histories: SessionLog, asked_at: int | None = None) -> NDArray[np.float32]:
    """Return the scores of all items, `(B, V)`, in an array of their own."""
    return model.scores(histories, asked_at=asked_at).dense().copy()


def expect_same(one: NDArray[Any], other: NDArray[Any], when: str) -> None:
    """Raise `ModelError` unless two matrices of scores are the same but for rounding."""
    expect(one.shape == other.shape, f"scores have the shape {one.shape} and then {other.shape} {when}.")
    differ = ~np.isclose(one, other, rtol=1e-4, atol=1e-6)
    if differ.any():
        row, item = np.argwhere(differ)[0]
        raise ModelError(
            f"the score of item {item} for question {row} is {one[row, item]} and then {other[row, item]} {when}."
        )


def arrays_of(model: Recommender[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Give a copy of every array that the model has learnt."""
    for name, values in model._arrays().items():
        yield name, np.array(values)


def _vocabulary() -> Vocabulary:
    return Vocabulary(np.array([*(f"item {i:02}" for i in range(N_ITEMS)), MARKER], dtype=object))
