"""Golden requests: questions and answers kept beside a model, by which a server knows that it works here.

```
model/
└── golden.json     [{"items": ["tea", "milk"], "list": ["sugar", ...]}, ...]
```

A model that loads may still answer otherwise than where it was fitted: another library, a damaged
kernel, a wrong file beside it.  Whoever is about to serve it asks first.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog
from nextsession.errors import ArtifactError
from nextsession.recommender import Recommendations, Recommender
from nextsession.scores import DotScores, TopK, tie_keys

FILE = "golden.json"
_QUESTIONS, _LENGTH = 16, 10
LEAST_OVERLAP = 0.8
"""Share of the items of all golden lists that must be found again; what is missing may be ties and rounding."""


def write_golden(model: Recommender[Any], folder: Path) -> None:
    """Ask a fitted model some questions made of its own items, and write down the answers."""
    items = model.vocabulary_.ids
    order = np.argsort(tie_keys(len(items)))  # some items, always the same
    chosen = items[order[: 3 * _QUESTIONS]].tolist()
    asked = [chosen[i : i + 1 + i % 3] for i in range(min(_QUESTIONS, len(chosen)))]
    found = _answers(model, asked)
    rows = [{"items": list(q), "list": a} for q, a in zip(asked, found, strict=True)]
    (folder / FILE).write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


Search: TypeAlias = Callable[[NDArray[np.float32], int], TopK]
"""Finds the best `k` items for queries `(B, D)`, most of them at least."""


def check_golden(model: Recommender[Any], folder: Path, search: Search | None = None) -> int:
    """Ask the golden requests again; return how many there are, 0 if the model was saved without.

    Args:
        model: What was loaded.
        folder: Where it was loaded from.
        search: That of an index, which is asked first: to look at every item takes long where there are many.

    Raises:
        ArtifactError: The file is damaged, or too many answers differ.
    """
    file = folder / FILE
    if not file.is_file():
        return 0
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        asked, expected = [row["items"] for row in rows], [row["list"] for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged: {type(error).__name__}: {error}.") from None
    wanted = sum(len(row) for row in expected)
    found = _answers(model, asked, search)
    again = _again(expected, found)
    if search is not None and again < LEAST_OVERLAP * wanted:
        found = _answers(model, asked)
        again = _again(expected, found)
    if again < LEAST_OVERLAP * wanted or (wanted and not sum(len(row) for row in found)):
        worst = min(range(len(rows)), key=lambda i: len(set(expected[i]) & set(found[i])) / max(len(expected[i]), 1))
        raise ArtifactError(
            f"{folder} answers otherwise than when it was saved: of {wanted} items in its golden lists {again} were "
            f"found again; after {asked[worst]} it said {expected[worst]}, now {found[worst]}. Fit it again."
        )
    return len(rows)


def _again(expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> int:
    return sum(len(set(row) & set(other)) for row, other in zip(expected, found, strict=True))


def _answers(model: Recommender[Any], asked: Sequence[Sequence[Any]], search: Search | None = None) -> list[list[Any]]:
    start = model.trained_until_
    times = [[[start + 1000 * i for i in range(len(items))]] for items in asked]
    log = SessionLog.from_lists([[list(items)] for items in asked], vocabulary=model.vocabulary_, times=times)
    if search is not None:
        scores = model.scores(log, asked_at=start + 60_000)
        if isinstance(scores, DotScores):
            top = search(scores.queries, _LENGTH)
            return list(Recommendations(top.items, top.scores, model.vocabulary_))
    return list(model.recommend(log, _LENGTH, asked_at=start + 60_000))
