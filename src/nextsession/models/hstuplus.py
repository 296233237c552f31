"""HSTU+: HSTU that also reads what was shown and ignored, and what kind each event was."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from nextsession.answering import Facts
from nextsession.nn.jagged import Batch
from nextsession.nn.networks import CausalEncoder, Examples, Head, Input, Network, NextItem, shifted
from nextsession.transducers import PUBLISHED, Transducer, TransducerSettings


class HSTUPlusSettings(TransducerSettings):
    """Settings of `HSTUPlus`."""

    targets: Literal["next-event", "next-wanted"] = "next-event"
    """An event foretells the one after it if that was wanted, and else nothing; or whatever is wanted next."""
    shown: int = Field(default=8, ge=0)
    """Ignored events that the sampler `shown` is given for each query: at most so many shown before what was wanted,
    and as many after it; 0: none."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hstuplus-kuaisar": {
            **PUBLISHED,
            "dim": 64,
            "layers": 4,
            "heads": 2,
            "optimiser": "adam",
            "batch_size": 64,
            "epochs": 200,
        },
    }


class HSTUPlus(Transducer[HSTUPlusSettings]):
    """HSTU over everything that was shown: the vector of an event is that of its item, of its kind, and of its label.

    Only wanted events are foretold.  `targets` says from where: by default from the event just before
    one that was wanted; where several were shown at one instant, from the event before them all.
    With the sampler `shown` among the negatives of the loss, what was wanted has to beat what was
    shown beside it and ignored.

    The baseline that SessionRec (Huang et al. 2025) calls HSTU+; Zhai et al. fuse items and actions likewise.
    The preset has the sizes of its experiments on KuaiSAR as far as they are published.
    """

    name = "hstuplus"
    reference = "Zhai et al., Actions speak louder than words: trillion-parameter sequential transducers, ICML 2024"
    reads_ignored: ClassVar[bool] = True
    reads_actions: ClassVar[bool] = True

    def _network(self, facts: Facts) -> Network:
        items, settings = self._items(facts), self.config
        return NextWanted(
            self._inputs(items, facts),
            self._encoder(),
            self._head(items),
            skip=settings.targets == "next-wanted",
            shown=settings.shown,
        )

    def _kinds(self, facts: Facts) -> dict[str, Any]:
        return {"n_actions": len(facts.actions), "ignored": True}

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Both targets, and a loss that sees what was shown."""
        small = {"dim": 16, "max_length": 20, "epochs": 30, "batch_size": 8, "learning_rate": 0.01}
        shown = {"kind": "sampled_softmax", "negatives": {"kind": "shown"}}
        both = {"kind": "sum", "parts": [{"loss": {"kind": "softmax"}}, {"loss": shown, "weight": 0.2}]}
        return [
            small,
            {**small, "targets": "next-wanted", "loss": both, "epochs": 5},
            {**small, "time": "none", "reads": "session", "epochs": 5},
        ]


class NextWanted(NextItem):
    """Every event of a row is read; what was wanted is to be foretold.

    Args:
        inputs: What reads events.
        encoder: What encodes them.
        head: What scores items.
        skip: Does an event before one that was ignored foretell what is wanted after that (else nothing)?
        shown: Ignored events that a query is told of, at most, on either side of what was wanted.
    """

    def __init__(self, inputs: Input, encoder: CausalEncoder, head: Head, *, skip: bool, shown: int) -> None:
        """Put the parts together."""
        super().__init__(inputs, encoder, head)
        self.skip, self.shown = skip, shown

    def examples(self, batch: Batch) -> Examples:
        """Return the queries that something wanted follows, and what was shown beside it and ignored."""
        known, _, _ = shifted(batch)
        rows = known.events.rows
        places = batch.events.offsets[:-1][rows] + known.events.positions  # in the batch, of each event that is known
        asks, query, target = lessons(batch, places, skip=self.skip)
        at, rows = places[asks], rows[asks]
        states = self.encoder(known.events.with_values(self.inputs(known)))[asks]
        shown, of_lesson = beside(batch, next_wanted(batch), at[query], target, self.shown)
        shown_of = query[of_lesson]
        one_each = len(query) == len(at)
        if not one_each:  # targets of one query have neighbours in common
            n = len(batch.events.values)
            pairs = torch.unique(shown_of * n + shown)
            shown, shown_of = pairs % n, pairs // n
        return Examples(
            self.head.queries(states),
            batch.events.values[target],
            of_query=None if one_each else query,
            users=rows,
            shown=batch.events.values[shown],
            shown_of=shown_of,
            weights=None if batch.weights is None else batch.weights[rows],
        )


def lessons(batch: Batch, places: Tensor, *, skip: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is to be foretold, and after which events.

    Where ignored events are logged, those of one instant are one list of what was shown.  Who has
    seen a part of a list knows more than any question does, so all that was wanted of it is
    foretold from the event before it.

    Args:
        batch: All events.
        places: Of the events after which a query can be asked, in it: all but the last of each row.
        skip: Does an event before a list that was ignored foretell what is wanted after that (else nothing)?

    Returns:
        Which places ask, a mask; the query of each lesson among them, never falling; and the place
        of the event that it should find.
    """
    events, n = batch.events, len(batch.events.values)
    every = torch.arange(n + 1, device=places.device)
    begins = torch.ones(n + 1, dtype=torch.bool, device=places.device)  # does a list begin here?
    if batch.labels is not None and events.times is not None:
        begins[1:n] = (events.times[1:] != events.times[:-1]) | (events.rows[1:] != events.rows[:-1])
    begin = torch.where(begins, every, 0).cummax(0).values
    end = torch.where(begins, every, n).flip(0).cummin(0).values.flip(0)  # of an event: that of the list before it
    first = next_wanted(batch)[places + 1]
    asks = begins[places + 1] & (first < events.offsets[1:][events.rows[places]])
    if not skip:
        asks &= begin[first] == places + 1
    first = first[asks]
    before = torch.zeros_like(every)  # wanted events before each place
    wanted = torch.ones_like(every[:n]) if batch.labels is None else (batch.labels == 1).long()
    torch.cumsum(wanted, 0, out=before[1:])
    counts = before[end[first + 1]] - before[first]
    query = torch.repeat_interleave(counts)
    within = torch.arange(len(query), device=places.device) - (counts.cumsum(0) - counts)[query]
    return asks, query, torch.nonzero(wanted).squeeze(1)[before[first][query] + within]


def next_wanted(batch: Batch) -> Tensor:
    """Return the place of the first wanted event from each on, itself included, `(N + 1,)`; `N` after the last.

    Rows are not told apart: a place may lie in a later row.
    """
    n, device = len(batch.events.values), batch.events.offsets.device
    places = torch.arange(n + 1, device=device)
    if batch.labels is None:
        return places
    places[:-1][batch.labels != 1] = n
    return places.flip(0).cummin(0).values.flip(0)


def beside(batch: Batch, wanted: Tensor, at: Tensor, target: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the places of the ignored events around what should be found, and the lesson of each.

    Those are the ones after the query and before its target, and the ones after the target up to the
    next wanted event or the end of the session: in a list of what was shown at once they compete too.

    Args:
        batch: All events.
        wanted: That of `next_wanted`.
        at: The place of the event after which each lesson is asked, `(P,)`.
        target: The place of the event to be found, `(P,)`.
        most: How far before and how far behind the target is looked.

    Returns:
        Places `(S,)`, and the lesson of each `(S,)`, never falling.
    """
    if batch.labels is None or most == 0 or len(at) == 0:
        return at[:0], at[:0]
    n = len(batch.events.values)
    last = torch.searchsorted(batch.sessions.values, target, right=True)  # the session after the target's
    begins = torch.cat([batch.sessions.values, torch.full_like(target[:1], n)])
    end = torch.minimum(begins[last], wanted[target + 1])
    steps = torch.arange(-most, most + 1, device=at.device)
    places = target[:, None] + steps
    ignored = (places > at[:, None]) & (places < end[:, None]) & (steps != 0)
    ignored &= batch.labels[places.clamp(0, n - 1)] == 0
    lesson, column = torch.nonzero(ignored, as_tuple=True)
    return places[lesson, column], lesson
