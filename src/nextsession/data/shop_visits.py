"""How visitors of the simulated shop behave, as compiled loops; and the exact probabilities behind it.

A visit is a row of pages.  Every place of a page is filled by a draw of its own from one
distribution `q` over the catalogue; the visitor goes down the page, looks at place `r` with
probability `looks[r]`, clicks an item looked at with probability `c`, and leaves the page with the
first click.  So in a given state (taste, intent, last click, recent clicks, period)

    P(the next click is item i) = q_i c_i / sum_j q_j c_j

exactly, whatever the position bias, because intent moves only with a click, and whether a visit goes
on depends only on *whether* there was a click.  (An item picked for two places of a page has two
chances and is logged once.)  `chances` computes these numbers; `live` draws from them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.shop_world import World

RECENT = 6
"""How many clicks back the shop and the visitor remember."""

_SHARP = 1.6  # how strongly taste decides
_NOISE = 0.6  # how far the shop's idea of a taste is off
_HOUR = 3_600_000
_LONGEST = 1_200_000  # ms between two pages of a visit, at most: below every usual gap


class Events(NamedTuple):
    """Room for events: what was shown, and whether it was clicked."""

    user: NDArray[np.int64]
    session: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    label: NDArray[np.int8]
    position: NDArray[np.int16]

    @classmethod
    def room(cls, n: int) -> "Events":
        """Make room for `n` events."""
        return cls._make(np.empty(n, kind) for kind in (np.int64, np.int64, np.int64, np.int64, np.int8, np.int16))


class States(NamedTuple):
    """Room for the truth: one row where a visit begins (`item` -1) and one for each click."""

    user: NDArray[np.int64]
    time: NDArray[np.int64]
    item: NDArray[np.int32]
    intent: NDArray[np.int32]  # category wished for from then on
    end: NDArray[np.int64]  # time of the last page of the visit

    @classmethod
    def room(cls, n: int) -> "States":
        """Make room for `n` rows."""
        return cls._make(np.empty(n, kind) for kind in (np.int64, np.int64, np.int32, np.int32, np.int64))


class Taste(NamedTuple):
    """What a visitor likes; `C` categories, `K` cells."""

    liking: NDArray[np.float64]  # (K,) factor of the chance of a click, 0..1
    guess: NDArray[np.float64]  # (K,) the shop's idea of it, a distribution
    wish: NDArray[np.float64]  # (C,) what a visitor with no memory comes for, a distribution

    @classmethod
    def room(cls, world: World) -> "Taste":
        """Make room for one visitor of this world."""
        kinds = len(world.cells)
        return cls(np.empty(kinds), np.empty(kinds), np.empty(len(world.category)))


@compiled
def seeded(random: NDArray[np.uint64], seed: int, user: int) -> None:
    """Set the generator of a user: a stream of its own, from seed and number alone."""
    random[0] = np.uint64(seed)
    _bits(random)
    random[0] = random[0] * np.uint64(0xD1342543DE82EF95) + np.uint64(user) * np.uint64(0xA24BAED4963EE407)
    _bits(random)


@compiled
def _bits(random: NDArray[np.uint64]) -> np.uint64:
    """Draw 64 bits: SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014)."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.uint64(z ^ (z >> np.uint64(31)))


@compiled
def uniform(random: NDArray[np.uint64]) -> float:
    """Draw from 0 <= x < 1."""
    return float(np.float64(_bits(random) >> np.uint64(11)) * (1.0 / 9007199254740992.0))


@compiled
def _normal(random: NDArray[np.uint64]) -> float:
    return float(np.sqrt(-2.0 * np.log(1.0 - uniform(random))) * np.cos(2.0 * np.pi * uniform(random)))


@compiled
def _drawn(random: NDArray[np.uint64], shares: NDArray[np.float64]) -> int:
    """Draw a place of a distribution."""
    left = uniform(random)
    for i in range(len(shares) - 1):
        left -= shares[i]
        if left < 0.0:
            return i
    return len(shares) - 1


@compiled
def meet(world: World, random: NDArray[np.uint64], taste: Taste) -> None:
    """Draw the taste of a visitor: the first numbers of the visitor's stream."""
    kinds, dim = world.cells.shape
    categories = len(world.category)
    own, guessed = np.empty(dim), np.empty(dim)
    for d in range(dim):
        own[d] = _normal(random) * 1.4
        guessed[d] = own[d] + _NOISE * _normal(random)
    total = 0.0
    for j in range(kinds):
        fit, idea = 0.0, 0.0
        for d in range(dim):
            fit += own[d] * world.cells[j, d]
            idea += guessed[d] * world.cells[j, d]
        taste.liking[j] = 1.0 / (1.0 + np.exp(-0.5 - _SHARP * fit))
        taste.guess[j] = np.exp(_SHARP * idea)
        total += taste.guess[j]
    for j in range(kinds):
        taste.guess[j] /= total
    total = 0.0
    for c in range(categories):
        fit = 0.0
        for d in range(dim):
            fit += own[d] * world.category[c, d]
        taste.wish[c] = np.exp(_SHARP * fit)
        total += taste.wish[c]
    for c in range(categories):
        taste.wish[c] /= total


@compiled
def _weight(world: World, period: int, low: int, high: int) -> float:
    """Sum the popularity of places `low..high` of the catalogue of a period."""
    base = world.starts[period] + period
    return float(world.weight[base + high] - world.weight[base + low])


@compiled
def _popular(world: World, period: int, low: int, high: int, random: NDArray[np.uint64]) -> int:
    """Draw an item among places `low..high` of the catalogue by popularity."""
    base = world.starts[period] + period
    first = world.weight[base + low]
    aim = first + uniform(random) * (world.weight[base + high] - first)
    last = high - 1
    while low < last:
        middle = (low + last + 1) >> 1
        if world.weight[base + middle] <= aim:
            low = middle
        else:
            last = middle - 1
    return int(world.shelf[world.starts[period] + low])


@compiled
def _there(world: World, item: int, period: int) -> bool:
    return bool(world.born[item] <= period < world.gone[item])


@compiled
def _pick(
    world: World, taste: Taste, intent: int, last: int, recent: NDArray[np.int32], period: int,
    random: NDArray[np.uint64],
) -> int:  # fmt: skip
    """Fill one place of a page: a draw from `q`."""
    bounds = world.bounds[period]
    source = _drawn(random, world.page)
    if source == 1:
        cell = _drawn(random, taste.guess)
        if _weight(world, period, bounds[cell], bounds[cell + 1]) > 0.0:
            return _popular(world, period, bounds[cell], bounds[cell + 1], random)
    elif source == 3 and last >= 0:
        item = int(world.related[last, _drawn(random, world.related_share)])
        if _there(world, item, period):
            return item
    elif source == 4:
        item = int(recent[int(uniform(random) * RECENT)])
        if item >= 0 and _there(world, item, period):
            return item
    elif source == 5:
        size = world.starts[period + 1] - world.starts[period]
        return int(world.shelf[world.starts[period] + int(uniform(random) * size)])
    styles = len(world.cells) // len(world.category)
    low, high = bounds[intent * styles], bounds[(intent + 1) * styles]
    if source == 0 or not _weight(world, period, low, high) > 0.0:
        low, high = bounds[0], bounds[-1]
    return _popular(world, period, low, high, random)


@compiled
def click_chance(world: World, taste: Taste, intent: int, item: int) -> float:
    """Return `c`: the probability that a visitor who looks at an item clicks it."""
    cell = world.cell[item]
    inside = cell // (len(world.cells) // len(world.category)) == intent
    return float(world.appeal[item] * taste.liking[cell] * (1.0 if inside else world.focus))


@compiled
def chances(
    world: World, taste: Taste, intent: int, last: int, recent: NDArray[np.int32], period: int,
    share: float, out: NDArray[np.float64],
) -> float:  # fmt: skip
    """Add `share` times the probability that each item is the next click to `out`, `(V,)`.

    Args:
        world: The world.
        taste: The visitor.
        intent: The category wished for.
        last: The last click of this visit, -1 if there is none yet.
        recent: The last `RECENT` clicks of all visits, -1 where there are fewer.
        period: When, in periods of restocking.
        share: Weight of this state.
        out: Where to add.

    Returns:
        `m`, the probability that an item looked at is clicked: that of a click on place `r` of a
        page, nothing above it having been clicked, is `m * looks[r]`.
    """
    bounds, start, end = world.bounds[period], world.starts[period], world.starts[period + 1]
    styles, n = len(world.cells) // len(world.category), end - start
    page, base = world.page, start + period
    chance = np.zeros(n)
    spare = page[2]
    for j in range(len(world.cells)):
        weight = _weight(world, period, bounds[j], bounds[j + 1])
        if weight > 0.0:
            for p in range(bounds[j], bounds[j + 1]):
                chance[p] += page[1] * taste.guess[j] * (world.weight[base + p + 1] - world.weight[base + p]) / weight
        else:
            spare += page[1] * taste.guess[j]
    listed = np.zeros(len(world.related_share) + RECENT)  # what the two short lists add, by place in them
    if last < 0:
        spare += page[3]
    else:
        for r in range(len(world.related_share)):
            if _there(world, world.related[last, r], period):
                listed[r] = page[3] * world.related_share[r]
            else:
                spare += page[3] * world.related_share[r]
    for r in range(RECENT):
        if recent[r] >= 0 and _there(world, recent[r], period):
            listed[len(world.related_share) + r] = page[4] / RECENT
        else:
            spare += page[4] / RECENT
    low, high = bounds[intent * styles], bounds[(intent + 1) * styles]
    everywhere = page[0]
    wished = _weight(world, period, low, high)
    if wished > 0.0:
        for p in range(low, high):
            chance[p] += spare * (world.weight[base + p + 1] - world.weight[base + p]) / wished
    else:
        everywhere += spare
    total = _weight(world, period, 0, n)
    clicked = 0.0
    for p in range(n):
        chance[p] += everywhere * (world.weight[base + p + 1] - world.weight[base + p]) / total + page[5] / n
        chance[p] *= click_chance(world, taste, intent, world.shelf[start + p])
        clicked += chance[p]
    for r in range(len(listed)):
        if listed[r] > 0.0:
            item = world.related[last, r] if r < len(world.related_share) else recent[r - len(world.related_share)]
            listed[r] *= click_chance(world, taste, intent, item)
            clicked += listed[r]
    for p in range(n):
        out[world.shelf[start + p]] += share * chance[p] / clicked
    for r in range(len(listed)):
        if listed[r] > 0.0:
            item = world.related[last, r] if r < len(world.related_share) else recent[r - len(world.related_share)]
            out[item] += share * listed[r] / clicked
    return float(clicked)


@compiled
def carried(world: World, pause: float) -> float:
    """Return how likely an intent outlives a pause (ms) between two visits."""
    return float(world.persistence * 2.0 ** (-pause / world.memory))


@compiled
def _clock(world: World, operational: float) -> int:
    """Bend operational time (ms since the opening) to the hours of the day; return ms since 1970."""
    day = np.floor(operational / 86_400_000.0)
    place = (operational / 86_400_000.0 - day) * (len(world.hours) - 1)
    low = int(place)
    part = place - low
    hour = world.hours[low] * (1.0 - part) + world.hours[low + 1] * part
    return world.opening + int((day + hour) * 86_400_000.0)


@compiled
def live(world: World, first: int, last: int, events: Events, states: States) -> tuple[int, int, int]:
    """Let users `first..last` live their lives, one after the other, as far as there is room.

    Returns:
        The first user there was no room for, and how many events and states were written.
    """
    random = np.empty(1, np.uint64)
    kinds = len(world.cells)
    taste = Taste(np.empty(kinds), np.empty(kinds), np.empty(len(world.category)))
    recent = np.empty(RECENT, np.int32)
    n, m = 0, 0
    for user in range(first, last):
        after, after_states = _life(world, user, taste, recent, random, events, states, n, m)
        if after < 0:
            return user, n, m
        n, m = after, after_states
    return last, n, m


@compiled
def _life(
    world: World, user: int, taste: Taste, recent: NDArray[np.int32], random: NDArray[np.uint64],
    events: Events, states: States, n: int, m: int,
) -> tuple[int, int]:  # fmt: skip
    """Write all visits of a user from places `n` and `m` on; return the next places, -1 if there is no room."""
    seeded(random, world.seed, user)
    meet(world, random, taste)
    recent[:] = -1
    pause = world.gap * np.exp(0.8 * _normal(random))  # median pause of this user
    operational = world.span * uniform(random) ** 2
    intent, visits = -1, 0
    previous = 0
    while True:
        time = _clock(world, operational)
        if time < previous + _HOUR:
            time = previous + _HOUR
        if time >= world.opening + world.span:
            return n, m
        if intent < 0 or uniform(random) >= carried(world, float(time - previous)):
            intent = _drawn(random, taste.wish)
        visit = m
        n, m, intent, previous = _visit(
            world, user, user * 10_000 + visits, time, intent, taste, recent, random, events, states, n, m
        )
        if n < 0:
            return n, m
        states.end[visit:m] = previous
        visits += 1
        if visits == 10_000 or uniform(random) < world.churn:
            return n, m
        operational += 2.0 * _HOUR + pause * np.exp(1.2 * _normal(random))


@compiled
def _visit(
    world: World, user: int, session: int, time: int, intent: int, taste: Taste, recent: NDArray[np.int32],
    random: NDArray[np.uint64], events: Events, states: States, n: int, m: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Write one visit; return the next places (-1: no room), the intent and the time of the last page."""
    places, styles = len(world.looks), len(world.cells) // len(world.category)
    last, opening = -1, world.opening
    picked = np.empty(places, np.int64)
    if m >= len(states.user):
        return -1, m, intent, time
    states.user[m], states.time[m], states.item[m], states.intent[m] = user, time, -1, intent
    m += 1
    while True:
        if n + places > len(events.user) or m >= len(states.user):
            return -1, m, intent, time
        period = (time - opening) // world.period
        clicked = -1
        for r in range(places):
            picked[r] = _pick(world, taste, intent, last, recent, period, random)
            if clicked < 0 and uniform(random) < world.looks[r] * click_chance(world, taste, intent, picked[r]):
                clicked = r
        for r in range(places):
            if _is_logged(picked, r, clicked):
                events.user[n], events.session[n], events.item[n], events.time[n] = user, session, picked[r], time
                events.label[n], events.position[n] = r == clicked, r + 1
                n += 1
        if clicked >= 0:
            item = picked[clicked]
            wish = world.cell[item] // styles
            intent = _drawn(random, world.next_wish[wish]) if uniform(random) < world.drift else wish
            last = item
            recent[1:] = recent[:-1].copy()
            recent[0] = item
            states.user[m], states.time[m], states.item[m], states.intent[m] = user, time, item, intent
            m += 1
        over = uniform(random) < (world.satisfied if clicked >= 0 else world.give_up)
        reading = 4_000 - int(40_000.0 * np.log(1.0 - uniform(random)))
        if over or reading > _LONGEST or time + reading >= opening + world.span:
            return n, m, intent, time
        time += reading


@compiled
def _is_logged(picked: NDArray[np.int64], place: int, clicked: int) -> bool:
    """Say whether the item at a place is logged there: one picked twice is logged once, where clicked or else first."""
    if clicked >= 0 and picked[place] == picked[clicked]:
        return place == clicked
    seen = 0
    for earlier in range(place):
        seen += picked[earlier] == picked[place]
    return seen == 0
