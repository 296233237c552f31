"""The world of the simulated shop: its items, what is on the shelves when, and what goes with what.

Everything here is drawn once from the seed; `nextsession.data.shop_visits` then lets visitors in.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.config import Duration, Settings

START = 1_704_067_200_000
"""When the shop opens: 2024-01-01 00:00 UTC, in ms."""

_DAY = 86_400_000
_RELATED = 8  # how many items are related to an item
_WARP = 1440  # steps of the table that bends operational time to the hours of the day


class Page(Settings):
    """What a page is filled with: the share of its places that each source gets, brought to a sum of 1.

    A place that `again`, `related` or `personal` cannot fill (no click yet, the item is gone) goes
    to `category`, and to `popular` when the category stands empty.
    """

    popular: float = Field(default=0.12, ge=0)
    """Items by their popularity on the day."""
    personal: float = Field(default=0.18, ge=0)
    """Items by the shop's own, noisy idea of the visitor's taste."""
    category: float = Field(default=0.27, ge=0)
    """The category the visitor came for: search and navigation."""
    related: float = Field(default=0.31, ge=0)
    """Items that go with the last click of the visit."""
    again: float = Field(default=0.05, ge=0)
    """Items the visitor clicked lately, in this visit or an earlier one."""
    explore: float = Field(default=0.07, gt=0)
    """Any item on the shelves, all alike; never zero, so every item can be shown to everybody."""


class ShopSettings(Settings):
    """The world; the same settings give the same shop and the same log, event for event."""

    seed: int = Field(default=0, ge=0)
    """Every random choice is drawn from this."""
    users: int = Field(default=5000, ge=1)
    """Visitors over the whole span."""
    items: int = Field(default=4000, ge=1)
    """Items over the whole span; about `lifetime / (span + lifetime)` of them are on the shelves at a time."""
    span: Duration = Field(default=60 * _DAY, gt=0)
    """How long the shop is watched."""
    categories: int = Field(default=20, ge=1)
    """Categories; each has `styles` styles."""
    styles: int = Field(default=5, ge=1)
    """Styles in each category."""
    dim: int = Field(default=6, ge=1)
    """Dimensions of taste."""
    lifetime: Duration = Field(default=40 * _DAY, gt=0)
    """How long an item stays on the shelves: half of this to one and a half times this."""
    half_life: Duration = Field(default=8 * _DAY, gt=0)
    """After this age an item has lost about half of the popularity it had when new; a little stays for ever."""
    restock: Duration = Field(default=6 * 3_600_000, gt=0)
    """The rhythm at which items come, age and go."""
    zipf: float = Field(default=0.8, ge=0)
    """Popularity when new falls with rank to this power."""
    places: int = Field(default=8, ge=1, le=1000)
    """Items on a page."""
    page: Page = Page()
    """What fills them."""
    position_bias: float = Field(default=0.5, ge=0)
    """The place with number `r` is looked at with probability `r ** -position_bias`."""
    focus: float = Field(default=0.12, gt=0, le=1)
    """How likely a click outside the visitor's present intent is, relative to one inside."""
    drift: float = Field(default=0.15, ge=0, le=1)
    """How often a click is followed by a wish for another category."""
    persistence: float = Field(default=0.6, ge=0, le=1)
    """How often a visitor who returns at once still wants what he wanted."""
    memory: Duration = Field(default=2 * _DAY, gt=0)
    """After this pause `persistence` is halved."""
    give_up: float = Field(default=0.28, gt=0, le=1)
    """How often a page without a click is the last of a visit."""
    satisfied: float = Field(default=0.12, gt=0, le=1)
    """How often a page with a click is the last of a visit."""
    churn: float = Field(default=0.12, ge=0, le=1)
    """How often a visit is the last of a visitor."""
    gap: Duration = Field(default=2 * _DAY, gt=0)
    """Median pause between two visits of an average visitor; never less than an hour."""

    @classmethod
    def sized(cls, events: int, *, seed: int = 0) -> "ShopSettings":
        """Return the default world with as many users and items as make about so many events."""
        users = max(1, round(events / EVENTS_PER_USER))
        return cls(seed=seed, users=users, items=max(50, min(200_000, round(3.5 * events**0.5))))


EVENTS_PER_USER = 235
"""Events of a user under the default settings, about."""


class World(NamedTuple):
    """The truth, as arrays a compiled loop can read.

    `V` items; `C` categories of `S` styles each make `C * S` cells, cell `c * S + s`.  The
    catalogue of period `e` is `shelf[starts[e]:starts[e + 1]]`, sorted by cell; cell `j` of it is
    `shelf[starts[e] + bounds[e, j]:starts[e] + bounds[e, j + 1]]`, and `weight` runs with one more
    value a period: `weight[starts[e] + e + p]` is the sum of the popularities before place `p`.
    """

    seed: int
    cell: NDArray[np.int32]  # (V,)
    appeal: NDArray[np.float64]  # (V,) in 0..1: how likely a looked-at item is clicked, at best
    born: NDArray[np.int32]  # (V,) first period on the shelves
    gone: NDArray[np.int32]  # (V,) first period no more on the shelves
    related: NDArray[np.int32]  # (V, R)
    related_share: NDArray[np.float64]  # (R,) sums to 1
    cells: NDArray[np.float64]  # (C*S, dim) what a cell is like
    category: NDArray[np.float64]  # (C, dim)
    next_wish: NDArray[np.float64]  # (C, C) where a wish drifts to
    starts: NDArray[np.int64]  # (E+1,)
    shelf: NDArray[np.int32]
    weight: NDArray[np.float64]
    bounds: NDArray[np.int64]  # (E, C*S+1)
    opening: int  # ms
    span: int  # ms
    period: int  # ms
    looks: NDArray[np.float64]  # (places,) how likely a place is looked at
    page: NDArray[np.float64]  # (6,) in the order of `Page`
    hours: NDArray[np.float64]  # (1441,) operational time of day -> time of day, both in 0..1
    focus: float
    drift: float
    persistence: float
    memory: float  # ms
    give_up: float
    satisfied: float
    churn: float
    gap: float  # ms


def build(settings: ShopSettings) -> World:
    """Draw the world; time and memory grow with items and periods, not with users."""
    random = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(1,)))
    n, kinds = settings.items, settings.categories * settings.styles
    periods = max(1, -(-settings.span // settings.restock))
    category = random.normal(size=(settings.categories, settings.dim)) / settings.dim**0.5
    style = random.normal(size=(kinds, settings.dim)) / settings.dim**0.5
    cells = np.repeat(category, settings.styles, axis=0) + 0.7 * style
    cell = _spread(random, n, kinds)
    born, gone = _lives(random, settings, periods)
    popularity = np.power(1.0 + random.permutation(n), -settings.zipf, dtype=np.float64)
    starts, shelf, weight, bounds = _shelves(settings, cell, born, gone, popularity, kinds, periods)
    rank = 1.0 / np.arange(1, _RELATED + 1)
    page = np.array([getattr(settings.page, source) for source in Page.model_fields], dtype=np.float64)
    return World(
        seed=settings.seed,
        cell=cell,
        appeal=0.3 + 0.65 * random.random(n),
        born=born,
        gone=gone,
        related=_relations(random, cell // settings.styles, born),
        related_share=rank / rank.sum(),
        cells=cells,
        category=category,
        next_wish=_drifts(random, settings.categories),
        starts=starts,
        shelf=shelf,
        weight=weight,
        bounds=bounds,
        opening=START,
        span=settings.span,
        period=settings.restock,
        looks=np.power(np.arange(1.0, settings.places + 1), -settings.position_bias, dtype=np.float64),
        page=page / page.sum(),
        hours=_hours(),
        focus=settings.focus,
        drift=settings.drift,
        persistence=settings.persistence,
        memory=float(settings.memory),
        give_up=settings.give_up,
        satisfied=settings.satisfied,
        churn=settings.churn,
        gap=float(settings.gap),
    )


def _spread(random: np.random.Generator, n: int, kinds: int) -> NDArray[np.int32]:
    """Put items in cells of unequal size."""
    share = random.dirichlet(np.full(kinds, 3.0))
    return random.choice(kinds, size=n, p=share).astype(np.int32)


def _lives(
    random: np.random.Generator, settings: ShopSettings, periods: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw first and last periods so that about as many items are there at all times."""
    life = settings.lifetime / settings.restock
    lives = np.maximum(1, np.round(life * (0.5 + random.random(settings.items)))).astype(np.int64)
    born = np.floor(random.random(settings.items) * (periods + lives)).astype(np.int64) - lives + 1
    born = np.minimum(born, periods - 1)
    there = np.zeros(periods + 1, np.int64)
    np.add.at(there, np.maximum(born, 0), 1)
    np.add.at(there, np.minimum(born + lives, periods), -1)
    if np.any(np.cumsum(there)[:periods] == 0):  # the shelves must never stand empty: one item is evergreen
        born[0], lives[0] = 0, periods
    return born.astype(np.int32), (born + lives).astype(np.int32)


def _shelves(
    settings: ShopSettings,
    cell: NDArray[np.int32],
    born: NDArray[np.int32],
    gone: NDArray[np.int32],
    popularity: NDArray[np.float64],
    kinds: int,
    periods: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """Lay out the catalogue of every period, with running sums of what is popular in it."""
    by_cell = np.argsort(cell, kind="stable").astype(np.int32)
    fading = settings.restock / settings.half_life
    starts, shelves, weights = [0], [], []
    bounds = np.zeros((periods, kinds + 1), np.int64)
    for e in range(periods):
        there = by_cell[(born[by_cell] <= e) & (e < gone[by_cell])]
        fresh = 0.02 + 0.98 * np.exp2(-fading * (e - born[there]))
        shelves.append(there)
        weights.append(np.concatenate([[0.0], np.cumsum(popularity[there] * fresh)]))
        bounds[e] = np.searchsorted(cell[there], np.arange(kinds + 1))
        starts.append(starts[-1] + len(there))
    return np.array(starts, np.int64), np.concatenate(shelves), np.concatenate(weights), bounds


def _relations(random: np.random.Generator, category: NDArray[np.int32], born: NDArray[np.int32]) -> NDArray[np.int32]:
    """Relate each item to those that come after it in its category, in an order near that of birth.

    So what goes with what has a direction (a kettle, then its filter), which only models of order see.
    """
    jitter = random.normal(scale=max(1.0, float(np.ptp(born)) / 30), size=len(born))
    order = np.lexsort((born + jitter, category))
    related = np.empty((len(born), _RELATED), np.int32)
    ends = np.searchsorted(category[order], np.arange(category.max() + 2))
    for a, z in pairwise(ends):
        places = np.arange(z - a)
        ahead = (places[:, None] + 1 + np.arange(_RELATED)) % max(1, z - a)
        related[order[a:z]] = order[a:z][ahead]
    return related


def _drifts(random: np.random.Generator, categories: int) -> NDArray[np.float64]:
    """Draw where a wish goes from each category: mostly to a few others."""
    return random.dirichlet(np.full(categories, 0.2), size=categories)


def _hours() -> NDArray[np.float64]:
    """Tabulate the bend of time that makes evenings busy and nights quiet."""
    x = np.linspace(0.0, 1.0, 4 * _WARP + 1)
    evening = 20 / 24
    busy = x + 0.65 / (2 * np.pi) * (np.sin(2 * np.pi * (x - evening)) + np.sin(2 * np.pi * evening))
    return np.interp(np.linspace(0.0, 1.0, _WARP + 1), busy, x)
