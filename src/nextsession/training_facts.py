"""What a training rests on beside its settings: the questions of its validation, and texts that tell data apart."""

import zlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.data.cases import Cases
from nextsession.data.items import ItemFeature
from nextsession.data.log import SessionLog, offsets_of
from nextsession.splits import fingerprint


def some_of(validation: Iterable[Cases], most: int, seed: int) -> list[Cases]:
    """Return at most so many of the validation questions, drawn by the seed, in the order they came."""
    blocks = [cases for cases in validation if len(cases)]
    sizes = np.array([len(cases) for cases in blocks], np.int64)
    if sizes.sum() <= most:
        return blocks
    chosen = np.sort(np.random.default_rng(seed).choice(sizes.sum(), most, replace=False))
    begins = offsets_of(sizes)
    parts = [chosen[(chosen >= a) & (chosen < z)] - a for a, z in pairwise(begins)]
    return [cases.take(part) for cases, part in zip(blocks, parts, strict=True) if len(part)]


def columns_key(
    log: SessionLog,
    kinds: NDArray[np.int64] | None,
    names: tuple[str, ...],
    features: Mapping[str, ItemFeature],
) -> str:
    """Return a text that depends on what is read beside items and times: kinds of events, side features."""
    parts: list[Any] = [log.timed, names, {name: len(x.labels) for name, x in features.items()}]
    arrays = [x for feature in features.values() for x in (feature.offsets, feature.codes)]
    arrays += [] if kinds is None else [kinds]
    key = zlib.crc32(repr(parts).encode())
    for array in arrays:
        key = zlib.crc32(np.ascontiguousarray(array).data, key)
    return f"{key:08x}"


def questions_key(cases: Cases) -> str:
    """Return a text that depends on the questions and on what they are answered by."""
    answers: list[NDArray[Any]] = [
        cases.asked_at,
        cases.targets,
        cases.target_offsets,
        cases.histories.vocabulary.ids[cases.targets],
    ]
    return f"{fingerprint(cases.histories)}-{zlib.crc32(repr([x.tolist() for x in answers]).encode()):08x}"
