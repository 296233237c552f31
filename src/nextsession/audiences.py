"""Audiences: of every item, what those who wanted it of late had wanted before.

A new item has no vector yet, but people have: whoever wants it first has wanted others.  So an item is
met by the mean of its latest people, and a person who is like them is likely to want it, too.

```
people x items  ── truncated SVD ──►  vectors of items  ── mean of what one wanted before ──►  a person
                                       audience of an item  ◄── mean of its people of late ──────┘
```
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.log import SessionLog

REACH = 6 * 3_600_000
"""Events so long (ms) before an instant still count."""
HALF_LIFE = 3_600_000
"""An event counts half as much as one that happened this much later (ms)."""
_DECAY = np.float32(0.95)
"""Of what a person wanted, each event counts so much less than the one after it."""
_DOUBT = np.float32(3.0)
"""An audience is the less trusted the smaller it is: so many unknown people are added to it."""
_FEW = 5
"""Items that fewer people wanted get no vector."""


@dataclass(frozen=True, eq=False)
class Audience:
    """Who wanted what, by time."""

    vectors: NDArray[np.float32]  # (V, A) of length 1, or 0 where too little is known
    times: NDArray[np.int64]  # (N,) ms, never falling: of the wanted events
    items: NDArray[np.int32]  # (N,)
    people: NDArray[np.float16]  # (N, A) what the person of each had wanted before it; 0 for nothing
    names: NDArray[np.uint64]  # (U,) hashes of the ids of all people, rising
    standing: NDArray[np.float16]  # (U, A) sums of the vectors of what they wanted, the latest counting most
    centre: NDArray[np.float32]  # (A,) the mean person

    @classmethod
    def of(cls, log: SessionLog, width: int, seed: int) -> "Audience":
        """Learn vectors of items from who wanted what, and go through the log with them.

        Args:
            log: Its wanted events are read.
            width: Numbers of a vector; fewer people or items leave some of them 0.
            seed: Where the search for the vectors begins.
        """
        wanted = log.positives()
        vectors = _vectors(wanted, width, seed)
        nobody = np.zeros((0, width), np.float16)
        empty = cls(
            vectors, np.zeros(0, np.int64), np.zeros(0, np.int32), nobody, np.zeros(0, np.uint64), nobody,
            np.zeros(width, np.float32),
        )  # fmt: skip
        found = empty._read(wanted)
        there = found.people.any(axis=1)
        centre = found.people[there].mean(axis=0, dtype=np.float32) if there.any() else found.centre
        found.people[there] -= centre.astype(np.float16)
        return replace(found, centre=centre)

    def joined(self, log: SessionLog) -> "Audience":
        """Return this and the wanted events of a log whose vocabulary extends its own; vectors stay as they are."""
        new = np.zeros((log.n_items - len(self.vectors), self.vectors.shape[1]), np.float32)
        grown = replace(self, vectors=np.concatenate([self.vectors, new]))
        return grown._read(log.positives())

    def at(self, instant: int) -> NDArray[np.float32]:
        """Return the audience of every item before an instant, `(V, A)`."""
        first, end = np.searchsorted(self.times, [instant - REACH, instant])
        found = np.zeros_like(self.vectors)
        _gather(
            found, self.times[first:end] - instant, self.items[first:end], self.people[first:end].astype(np.float32)
        )
        return found

    def persons(self, histories: SessionLog) -> NDArray[np.float32]:
        """Return what the person of each history has wanted, `(B, A)`; 0 where nothing is known."""
        found = np.zeros((len(histories), self.vectors.shape[1]), np.float32)
        _walk(
            self.vectors, histories.items, np.ascontiguousarray(histories.labels), histories.event_offsets,
            found, np.zeros((0, 0), np.float32),
        )  # fmt: skip
        return _centred(found, self.centre)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays by name."""
        return {f"audience/{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> "Audience | None":
        """Take back what `arrays` gave; None if nothing of it is there."""
        if "audience/times" not in arrays:
            return None
        return cls(**{name: arrays[f"audience/{name}"] for name in cls.__dataclass_fields__})

    def _read(self, log: SessionLog) -> "Audience":
        """Return this with the events of a log: each person goes on from where it stood."""
        width = self.vectors.shape[1]
        theirs = np.array([_hash(name) for name in log.users.tolist()], np.uint64)
        names = np.union1d(self.names, theirs)
        standing = np.zeros((len(names), width), np.float16)
        standing[np.searchsorted(names, self.names)] = self.standing
        places = np.searchsorted(names, theirs)
        state = standing[places].astype(np.float32)
        before = np.zeros((log.n_events, width), np.float32)
        _walk(self.vectors, log.items, np.ascontiguousarray(log.labels), log.event_offsets, state, before)
        standing[places] = state
        people = _centred(before, self.centre).astype(np.float16)
        order = np.argsort(log.times, kind="stable")
        times = np.concatenate([self.times, log.times[order]])
        items, people = np.concatenate([self.items, log.items[order]]), np.concatenate([self.people, people[order]])
        if len(self.times) and log.n_events and log.times.min() < self.times[-1]:
            order = np.argsort(times, kind="stable")
            times, items, people = times[order], items[order], people[order]
        return replace(self, times=times, items=items, people=people, names=names, standing=standing)


def _vectors(wanted: SessionLog, width: int, seed: int) -> NDArray[np.float32]:
    """Return the right singular vectors of who wanted what, scaled and of length 1, `(V, width)`."""
    people = np.repeat(np.arange(len(wanted)), np.diff(wanted.event_offsets))
    who = sp.csr_matrix((np.ones(len(people), np.float32), (people, wanted.items)), (len(wanted), wanted.n_items))
    n_people = np.bincount(who.indices, minlength=wanted.n_items)  # each pair once, however often it occurred
    who.data[:] = (1 / np.sqrt(np.maximum(n_people, 4 * _FEW)))[who.indices]
    found: NDArray[np.float32] = np.zeros((wanted.n_items, width), np.float32)
    rank = min(width, min(who.shape) - 1)
    if rank < 1 or not who.nnz:
        return found
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(seed).standard_normal(min(who.shape)).astype(np.float32)
    _, values, rows = svds(who, k=rank, v0=start)
    found[:, :rank] = rows.T * np.sqrt(values)
    found[n_people < _FEW] = 0
    return _of_length_1(found)


def _of_length_1(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    found: NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-6)
    return found


def _centred(sums: NDArray[np.float32], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return persons: sums brought to length 1, less the mean person; 0 where there is nothing."""
    there = np.any(np.abs(sums) > 1e-6, axis=1)
    found = np.zeros_like(sums)
    found[there] = _of_length_1(sums[there]) - centre
    return found


def _hash(name: Any) -> int:
    """Return a number of 64 bits for the id of a person, which is not kept itself."""
    return int.from_bytes(hashlib.blake2b(str(name).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@compiled
def _walk(
    vectors: NDArray[np.float32],
    items: NDArray[np.int32],
    labels: NDArray[np.int8],
    offsets: NDArray[np.int64],
    state: NDArray[np.float32],
    before: NDArray[np.float32],
) -> None:
    """Go through the events of each row; write the sums before each event (if there is room), and those after all."""
    for u in range(len(offsets) - 1):
        for e in range(offsets[u], offsets[u + 1]):
            if len(before):
                before[e] = state[u]
            if labels[e] == 1:
                for a in range(state.shape[1]):
                    state[u, a] = _DECAY * state[u, a] + vectors[items[e], a]


@compiled
def _gather(
    found: NDArray[np.float32], ages: NDArray[np.int64], items: NDArray[np.int32], people: NDArray[np.float32]
) -> None:
    """Add up the people of each item, late ones above all, and divide by their number and some doubt."""
    weights = np.zeros(len(found), np.float32)
    for e in range(len(items)):
        weight = np.float32(2.0 ** (ages[e] / HALF_LIFE))
        weights[items[e]] += weight
        for a in range(found.shape[1]):
            found[items[e], a] += weight * people[e, a]
    for v in range(len(found)):
        if weights[v] > 0:
            for a in range(found.shape[1]):
                found[v, a] /= weights[v] + _DOUBT
