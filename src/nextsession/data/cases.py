"""Cases: questions and their answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog, offsets_of
from nextsession.errors import DataError


@dataclass(frozen=True, eq=False)
class Cases:
    """A block of `Q` questions: what was known, when it was asked, and what came next.

    Codes are those of `histories.vocabulary`, which may hold items a model has never seen.
    Question `q` was answered by `targets[target_offsets[q]:target_offsets[q + 1]]`, distinct items.
    """

    histories: SessionLog  # one row a question
    asked_at: NDArray[np.int64]  # (Q,) ms; everything in the history happened before
    targets: NDArray[np.int32]  # (T,)
    target_offsets: NDArray[np.int64]  # (Q+1,)
    groups: NDArray[np.int64]  # (Q,) questions of one user share a number: they are resampled together
    ignored: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Items shown in the asked session and not wanted, all questions end to end; never an input."""
    ignored_offsets: NDArray[np.int64] = field(default=None)  # type: ignore[arg-type]  # (Q+1,)
    positions: NDArray[np.int64] = field(default=None)  # type: ignore[arg-type]
    """(Q,) events of the asked session that came before the answer; by default those of the last session known."""
    news: SessionLog | None = None
    """What everybody did since the block before: a model that can learn on is told before it is asked."""
    held: SessionLog | None = None
    """What was held back from training, of before and after the questions of all blocks: a model that can learn on is
    told, if it `looks_back` alone."""

    def __post_init__(self) -> None:
        """Check that all columns speak of the same questions."""
        q = len(self.histories)
        if self.ignored_offsets is None:
            object.__setattr__(self, "ignored_offsets", np.zeros(q + 1, np.int64))
        if self.positions is None:
            starts, stops = self.histories.last_sessions
            object.__setattr__(self, "positions", stops - starts)
        for name in ("asked_at", "groups", "positions"):
            if len(getattr(self, name)) != q:
                raise DataError(f"{name} must have one value a question ({q}), it has {len(getattr(self, name))}.")
        for name, values in (("target_offsets", self.targets), ("ignored_offsets", self.ignored)):
            offsets = getattr(self, name)
            if len(offsets) != q + 1 or offsets[-1] != len(values):
                raise DataError(f"{name} must have {q + 1} values and end at {len(values)}.")

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.histories)

    def take(self, questions: NDArray[np.int64]) -> "Cases":
        """Return these questions, in this order, without what is told before them."""
        return Cases(
            histories=self.histories.take(questions),
            asked_at=self.asked_at[questions],
            targets=np.concatenate([_part(self.targets, self.target_offsets, q, q + 1)[0] for q in questions]),
            target_offsets=offsets_of(np.diff(self.target_offsets)[questions]),
            groups=self.groups[questions],
            ignored=np.concatenate([_part(self.ignored, self.ignored_offsets, q, q + 1)[0] for q in questions]),
            ignored_offsets=offsets_of(np.diff(self.ignored_offsets)[questions]),
            positions=self.positions[questions],
        )

    def rows(self, start: int, stop: int) -> "Cases":
        """Return questions `start..stop`, without what is told before them."""
        targets, target_offsets = _part(self.targets, self.target_offsets, start, stop)
        ignored, ignored_offsets = _part(self.ignored, self.ignored_offsets, start, stop)
        return Cases(
            histories=self.histories.rows(start, stop),
            asked_at=self.asked_at[start:stop],
            targets=targets,
            target_offsets=target_offsets,
            groups=self.groups[start:stop],
            ignored=ignored,
            ignored_offsets=ignored_offsets,
            positions=self.positions[start:stop],
        )


def _part(
    values: NDArray[np.int32], offsets: NDArray[np.int64], start: int, stop: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    ends = offsets[start : stop + 1]
    return values[ends[0] : ends[-1]], ends - ends[0]


Questions: TypeAlias = Callable[[], Iterator[Cases]]
"""Questions that can be put again and again: call it for a fresh iterator of blocks."""


@dataclass(frozen=True)
class Blocks:
    """Questions as something to loop over, as often as one likes: what `Recommender.fit` takes for validation."""

    questions: Questions

    def __iter__(self) -> Iterator[Cases]:
        """Give the blocks from the first."""
        return self.questions()
