"""The compiled search behind the neighbour models: questions and an index in, sparse scores out.

Sessions are numbered by age and every item lists its sessions in that order, so the lists of a
question's items are merged from their newest ends, and the merge stops when the sample is full: a
question costs about as much as its sample, however many sessions there are.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled

SAME, DIV, QUADRATIC, LOG, LINEAR, EXPONENTIAL, IDF, SHARE = range(8)
"""Kinds of weights; see `_weight` (of an item of the question) and `_decay` (of a neighbour)."""

VEC, COSINE, JACCARD, SUM = range(4)
"""Kinds of similarity; see `_compare`."""

_FAINTEST = 1e-20  # scores of questions asked long after the last session stay representable in float32


class Recipe(NamedTuple):
    """What makes one neighbour model different from another."""

    weighting: int
    """Kind of weight of the question's items by their place."""
    similarity: int
    """Kind of similarity of the question with a session."""
    decay: int = SAME
    """Kind of decay of a neighbour's vote with the age, in events, of the latest item it shares."""
    weighting_scale: float = 1.0
    """Events; of exponential weights."""
    decay_scale: float = 1.0
    """Events; of the exponential decay."""
    age_scale: float = 0.0
    """Milliseconds in which a session's similarity falls to 1/e; 0: never.  Others than 0 need `clocked`."""
    distance_scale: float = 0.0
    """Events between a neighbour's item and its latest shared item in which the vote falls to 1/e; 0: never."""
    base: float = 1.0
    """Votes for item `i` are multiplied by `base + idf * idf(i)`."""
    idf: float = 0.0
    clocked: bool = False
    """Only sessions that ended before the instant of the question exist."""


class Index(NamedTuple):
    """Sessions numbered by age (0 is the oldest), and the sessions of each item.

    Of sessions that end at the same instant the one further down the log has the higher number,
    and sessions learnt by an update are further down than those learnt before.
    """

    items: NDArray[np.int32]  # (N,) events, oldest session first
    offsets: NDArray[np.int64]  # (S+1,) into items
    ends: NDArray[np.int64]  # (S,) ms, never falling
    widths: NDArray[np.int32]  # (S,) number of distinct items
    posting_offsets: NDArray[np.int64]  # (V+1,)
    postings: NDArray[np.int32]  # (P,) sessions of each item, oldest first
    prior: NDArray[np.int32]  # (P,) events of the item in sessions older than this one
    events: NDArray[np.int64]  # (V,) events of each item
    idf: NDArray[np.float64]  # (V,)


class Workspace(NamedTuple):
    """Scratch of one call, shared by its questions."""

    steps: NDArray[np.int32]  # (V,) events from the end of the question to the item, from 1; 0: not in it
    marks: NDArray[np.int64]  # (V,) the neighbour that last voted for the item
    votes: NDArray[np.float64]  # (V,)
    rarity: NDArray[np.float64]  # (V,) idf when the question is asked
    touched: NDArray[np.int32]  # (V,) items with votes
    newest: NDArray[np.int32]  # (candidates,) newest first
    shared: NDArray[np.float64]  # (candidates,) weights of shared items, then similarity
    nearest: NDArray[np.int32]  # (candidates,) steps of the latest shared item
    scratch: NDArray[np.float64]  # (candidates,)
    chosen: NDArray[np.int32]  # (candidates,) neighbours, newest first
    asked: NDArray[np.int32]  # (L,) distinct items of the question, latest first
    weights: NDArray[np.float64]  # (L,)
    heads: NDArray[np.int64]  # (L,) next posting of each
    heap: NDArray[np.int64]  # (L,)


def workspace(n_items: int, sample: int, longest: int) -> Workspace:
    """Return scratch for questions of at most `longest` events; pages that are not touched cost nothing."""
    return Workspace(
        steps=np.zeros(n_items, np.int32),
        marks=np.zeros(n_items, np.int64),
        votes=np.empty(n_items, np.float64),
        rarity=np.empty(n_items, np.float64),
        touched=np.empty(n_items, np.int32),
        newest=np.empty(sample, np.int32),
        shared=np.empty(sample, np.float64),
        nearest=np.empty(sample, np.int32),
        scratch=np.empty(sample, np.float64),
        chosen=np.empty(sample, np.int32),
        asked=np.empty(longest, np.int32),
        weights=np.empty(longest, np.float64),
        heads=np.empty(longest, np.int64),
        heap=np.empty(longest, np.int64),
    )


@compiled
def search(
    recipe: Recipe,
    index: Index,
    neighbours: int,
    sample: int,
    items: NDArray[np.int32],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    work: Workspace,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Answer questions whose items are `items[starts[b]:stops[b]]`: offsets, codes and values of sparse scores."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    codes = np.empty(256 * len(starts), np.int32)
    values = np.empty(len(codes), np.float32)
    voters = 0
    for b in range(len(starts)):
        known = len(index.ends)
        if recipe.clocked and index.ends[known - 1] >= asked_at[b]:
            known = np.searchsorted(index.ends, asked_at[b])
        asked = _read(recipe, index, items, starts[b], stops[b], work)
        found = _merge(recipe, index, neighbours, sample, known, asked, work)
        _compare(recipe, index, found, stops[b] - starts[b], asked, work)
        chosen = _choose(neighbours, found, work)
        touched = _vote(recipe, index, known, chosen, voters, work)
        voters += chosen
        loudness = 1.0
        if recipe.age_scale > 0 and chosen:
            loudness = max(math.exp((index.ends[work.newest[0]] - asked_at[b]) / recipe.age_scale), _FAINTEST)
        end = offsets[b] + touched
        if end > len(codes):
            codes = _grown(codes, 2 * end)
            values = _grown(values, 2 * end)
        for t in range(touched):
            item = work.touched[t]
            codes[offsets[b] + t] = item
            values[offsets[b] + t] = loudness * work.votes[item]
        offsets[b + 1] = end
        for u in range(asked):
            work.steps[work.asked[u]] = 0
    return offsets, codes[: offsets[-1]], values[: offsets[-1]]


@compiled
def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return a longer array that begins with this one."""
    longer = np.empty(size, array.dtype)
    longer[: len(array)] = array
    return longer


@compiled
def _read(recipe: Recipe, index: Index, items: NDArray[np.int32], start: int, stop: int, work: Workspace) -> int:
    """Note the distinct items of a question, latest first, with steps from the end and weights; return how many."""
    asked = 0
    for e in range(stop - 1, start - 1, -1):
        item = items[e]
        if work.steps[item] == 0:
            work.steps[item] = stop - e
            work.asked[asked] = item
            asked += 1
    for u in range(asked):
        item = work.asked[u]
        work.weights[u] = _weight(recipe, work.steps[item], stop - start, index.idf[item])
    return asked


@compiled
def _weight(recipe: Recipe, step: int, length: int, idf: float) -> float:
    """Weigh an item of the question, `step` events from the end (the last is 1) of `length` events, in `_unit`s.

    Weights that are fractions of one number are whole in units of it, so that equal sums are equal.
    """
    place = length - step + 1
    if recipe.weighting in (DIV, SHARE):
        return place
    if recipe.weighting == QUADRATIC:
        return place * place
    if recipe.weighting == LOG:
        return 1.0 / math.log10(step - 1 + 1.7)
    if recipe.weighting == LINEAR:
        return max(0, 11 - step)
    if recipe.weighting == EXPONENTIAL:
        return math.exp((1 - step) / recipe.weighting_scale)
    if recipe.weighting == IDF:
        return idf
    return 1.0


@compiled
def _unit(recipe: Recipe, length: int, distinct: int) -> float:
    """Return what a weight of 1 stands for in a question of `length` events."""
    if recipe.weighting == DIV:
        return 1.0 / length
    if recipe.weighting == QUADRATIC:
        return 1.0 / (length * length)
    if recipe.weighting == LINEAR:
        return 0.1
    if recipe.weighting == SHARE:
        return 1.0 / distinct
    return 1.0


@compiled
def _decay(recipe: Recipe, step: int) -> float:
    """Weigh the votes of a neighbour by its latest shared item, `step` events from the end of the question."""
    if recipe.decay == DIV:
        return 1.0 / step
    if recipe.decay == QUADRATIC:
        return 1.0 / (step * step)
    if recipe.decay == LOG:
        return 1.0 / math.log10(step + 1.7)
    if recipe.decay == LINEAR:
        return max(0.0, 1.0 - 0.1 * step)
    if recipe.decay == EXPONENTIAL:
        return math.exp((1 - step) / recipe.decay_scale)
    return 1.0


@compiled
def _merge(recipe: Recipe, index: Index, neighbours: int, sample: int, known: int, asked: int, work: Workspace) -> int:
    """Find the newest `sample` sessions, numbered below `known`, with any item asked; sum the weights they share.

    A merge of the items' postings from their newest ends.  The heap holds the next session of every
    item, packed with the item so that of equal sessions the latest item comes first.  Where a
    similarity is the shared weight alone, `neighbours` sessions that share everything are enough.
    """
    size, whole = 0, 0.0
    for u in range(asked):
        start, head = index.posting_offsets[work.asked[u]], index.posting_offsets[work.asked[u] + 1]
        if known < len(index.ends):
            head = start + np.searchsorted(index.postings[start:head], known)
        work.heads[u] = head - 1
        whole += work.weights[u]
        if head > start:
            size += 1
            _rise(work.heap, size, (int(index.postings[head - 1]) << 32) | (asked - 1 - u))
    alike = recipe.weighting != IDF and (recipe.similarity == VEC or recipe.similarity == SUM)
    found, best, session = 0, 0, -1
    while size:
        u = asked - 1 - (work.heap[0] & 0xFFFFFFFF)
        if work.heap[0] >> 32 != session:
            if alike and found and work.shared[found - 1] >= whole:
                best += 1
            if found == sample or best == neighbours:
                break
            session = work.heap[0] >> 32
            work.newest[found] = session
            work.shared[found] = 0.0
            work.nearest[found] = work.steps[work.asked[u]]
            found += 1
        work.shared[found - 1] += work.weights[u]
        work.heads[u] -= 1
        if work.heads[u] >= index.posting_offsets[work.asked[u]]:
            key = (int(index.postings[work.heads[u]]) << 32) | (asked - 1 - u)
        else:
            size -= 1
            key = work.heap[size]
        _sink(work.heap, size, key)
    return found


@compiled
def _rise(heap: NDArray[np.int64], size: int, key: int) -> None:
    """Add a key to a heap, greatest first, that has `size` keys with it."""
    place = size - 1
    while place > 0 and heap[(place - 1) // 2] < key:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[place] = key


@compiled
def _sink(heap: NDArray[np.int64], size: int, key: int) -> None:
    """Put a key in place of the greatest."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key


@compiled
def _compare(recipe: Recipe, index: Index, found: int, length: int, asked: int, work: Workspace) -> None:
    """Turn the weights that candidates share into similarities; ages count from the newest candidate."""
    if not found:
        return
    squares = 0.0
    for u in range(asked):
        squares += work.weights[u] * work.weights[u]
    norm, unit = math.sqrt(squares), _unit(recipe, length, asked)
    for c in range(found):
        session, shared = work.newest[c], work.shared[c]
        if shared <= 0:
            similarity = 0.0
        elif recipe.similarity == VEC:
            similarity = shared * unit / asked
        elif recipe.similarity == COSINE:  # shared / (norm * root of the width), such that equal fractions are equal
            similarity = math.sqrt(shared * shared / index.widths[session]) / norm
        elif recipe.similarity == JACCARD:
            similarity = shared / (asked + index.widths[session] - shared)
        else:
            similarity = shared * unit
        if recipe.age_scale > 0:
            similarity *= math.exp((index.ends[session] - index.ends[work.newest[0]]) / recipe.age_scale)
        work.shared[c] = similarity


@compiled
def _choose(neighbours: int, found: int, work: Workspace) -> int:
    """Keep the most similar candidates, newest first; of equal ones the newer.  Return how many."""
    least, ties = 0.0, 0
    if found > neighbours:
        work.scratch[:found] = work.shared[:found]
        least = max(0.0, _greatest(work.scratch, found, neighbours))
        ties = neighbours
        for c in range(found):
            ties -= work.shared[c] > least
    chosen = 0
    for c in range(found):
        tied = work.shared[c] == least and least > 0 and ties > 0
        if work.shared[c] > least or tied:
            ties -= tied
            work.shared[chosen], work.nearest[chosen] = work.shared[c], work.nearest[c]
            work.chosen[chosen] = work.newest[c]
            chosen += 1
    return chosen


@compiled
def _greatest(values: NDArray[np.float64], size: int, k: int) -> float:
    """Return the `k`-th greatest of the first `size` values, which are reordered."""
    low, high = 0, size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        a, z = low, high
        while a <= z:
            while values[a] > pivot:
                a += 1
            while values[z] < pivot:
                z -= 1
            if a <= z:
                values[a], values[z] = values[z], values[a]
                a += 1
                z -= 1
        if k - 1 <= z:
            high = z
        elif k - 1 >= a:
            low = a
        else:
            break
    return float(values[k - 1])


@compiled
def _vote(recipe: Recipe, index: Index, known: int, chosen: int, voters: int, work: Workspace) -> int:
    """Let the neighbours vote for their items; return how many items have votes."""
    touched, everything = 0, known == len(index.ends)
    for c in range(chosen):
        session = work.chosen[c]
        strength = work.shared[c] * _decay(recipe, work.nearest[c])
        start, stop = index.offsets[session], index.offsets[session + 1]
        shared = stop - 1
        while work.steps[index.items[shared]] == 0:
            shared -= 1
        for e in range(stop - 1, start - 1, -1):
            item = index.items[e]
            if work.marks[item] > voters + c:
                continue
            vote = strength
            if recipe.distance_scale > 0:
                vote *= math.exp(-abs(e - shared) / recipe.distance_scale)
            if recipe.idf != 0:
                if work.marks[item] <= voters:
                    work.rarity[item] = index.idf[item] if everything else _idf(index, item, known)
                vote *= recipe.base + recipe.idf * work.rarity[item]
            if work.marks[item] <= voters:
                work.touched[touched] = item
                touched += 1
                work.votes[item] = vote
            else:
                work.votes[item] += vote
            work.marks[item] = voters + c + 1
    return touched


@compiled
def _idf(index: Index, item: int, known: int) -> float:
    """Return the idf of an item among the first `known` sessions, of which one holds it."""
    start, stop = index.posting_offsets[item], index.posting_offsets[item + 1]
    later = start + np.searchsorted(index.postings[start:stop], known)
    events = index.prior[later] if later < stop else index.events[item]
    return math.log(known / events)
