"""Next-session prediction: sessions are the tokens, all that is wanted in the next session is the target.

Huang et al., SessionRec: Next-session prediction paradigm for generative sequential recommendation, 2025.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.networks import CausalEncoder, Examples, Head, Input, Network
from nextsession.nn.one_row import OneRow
from nextsession.nn.ops.dropout import dropout
from nextsession.nn.session_encoders import SessionEncoder, sessions_of

Tokens = Literal["sessions", "items", "both"]
"""What the sequence encoder reads: one vector a session, one an event, or the events with their session after them."""


class NextSession(Network):
    """Reads sessions one after another; the state after each asks for what is wanted in the next.

    ```
    z[s] = within(vectors of the events of session s) + place[s]      (eq. 5)
    h    = across(z)                                                  (eq. 6)
    score(item | sessions 0..s) = h[s] . e[item]                      (eq. 7)
    ```

    The last session of a row may be *open*: still going on.  Then its vector is that of the events so
    far, marked as open, and the state after it asks for the next event.  In training the last
    session of every row, which has no successor to foretell, is cut at random and teaches that.

    Args:
        inputs: What reads events.
        within: Encoder of sessions.
        across: Encoder of the sequence.
        head: What scores items.
        tokens: What the sequence consists of.
        places: Sessions (or tokens) with a vector for their place each, counted from the oldest that is read; 0: none.
        scale: What the vectors of the sequence are multiplied by before their place is added.
        rate: Dropout of the tokens.
        open_within: Milliseconds after its last event in which a session is open; 0: none ever is, and nothing is
            learnt of open sessions; None: the last one of a row always is.
    """

    def __init__(
        self,
        inputs: Input,
        within: SessionEncoder,
        across: CausalEncoder,
        head: Head,
        *,
        tokens: Tokens = "sessions",
        places: int = 0,
        scale: float = 1.0,
        rate: float = 0.0,
        open_within: int | None = 0,
    ) -> None:
        """Put the parts together."""
        super().__init__()
        dim = inputs.items.dim
        self.inputs, self.within, self.across, self.head = inputs, within, across, head
        self.tokens, self.scale, self.rate, self.open_within = tokens, scale, rate, open_within
        self.places = nn.Parameter(torch.empty(places, dim)) if places else None
        self.opened = nn.Parameter(torch.zeros(dim)) if open_within != 0 else None
        if self.places is not None:
            nn.init.normal_(self.places, std=0.02)

    def forward(self, batch: Batch) -> Tensor:
        """Return the query of each history, `(B, D)`; anything for an empty one."""
        rows, _ = self._sequence(batch, self._are_open(batch))
        return self.head.queries(self.across.last(rows))

    def examples(self, batch: Batch) -> Examples:
        """Return the queries that a later session of the row answers, and all that was wanted in the next of those.

        What was shown there and ignored goes with them.  Sessions in which nothing was wanted are
        read and never asked for.  If sessions can be open, a row's last one is cut at random, and what was wanted next
        in it is one more query.
        """
        known, answers = (batch, None) if self.open_within == 0 else cut_last_sessions(batch)
        opened = None if answers is None else answers.of_row
        rows, ends = self._sequence(known, opened)
        states = self.across(rows)[ends]
        found = following(batch)
        asks, positives, of_query, shown, shown_of = found.session, found.items, found.of_query, found.shown, found.of
        if answers is not None:
            last = (known.sessions.offsets[1:] - 1)[answers.of_row]  # which `following` never asks: nothing comes later
            asks, order = torch.sort(torch.cat([asks, last]))  # the queries of a row stand after each other
            places = torch.argsort(order)
            of_last = len(found.session) + torch.arange(len(last), device=last.device)
            of_query, order = torch.sort(places[torch.cat([of_query, of_last])], stable=True)
            positives = torch.cat([positives, answers.items])[order]
            shown_of = places[shown_of]
        users = known.sessions.rows[asks]
        return Examples(
            self.head.queries(states[asks]),
            positives,
            of_query=of_query,
            users=users,
            shown=shown,
            shown_of=shown_of,
            weights=None if batch.weights is None else batch.weights[users],
        )

    def _are_open(self, batch: Batch) -> Tensor | None:
        """Return which histories end in an open session, `(B,)`; None: none."""
        if self.open_within == 0:
            return None
        everywhere = torch.ones(len(batch), dtype=torch.bool, device=batch.events.offsets.device)
        times, asked_at = batch.events.times, batch.events.asked_at
        if self.open_within is None or times is None or asked_at is None:
            return everywhere
        return asked_at - batch.events.with_values(times).last() <= self.open_within

    def _sequence(self, batch: Batch, opened: Tensor | None) -> tuple[Jagged, Tensor]:
        """Return the tokens of each row, and the place of the last token of each session among them, `(S,)`."""
        vectors = self.inputs(batch)
        sessions = batch.sessions
        if self.tokens == "items":
            ends = torch.cat([sessions.values[1:], sessions.values.new_full((1,), vectors.shape[0])]) - 1
            return self._placed(batch.events.with_values(vectors)), ends[: sessions.values.shape[0]]
        wanted = None if batch.labels is None else batch.labels.to(vectors.dtype)
        of_sessions = self.within(sessions_of(batch, vectors), wanted)
        if opened is not None and self.opened is not None and of_sessions.shape[0] > 0:
            last = (sessions.offsets[1:] - 1).clamp(min=0)
            marks = (opened & (sessions.lengths > 0)).to(of_sessions.dtype)[:, None]
            of_sessions = of_sessions.index_add(0, last, marks * self.opened.to(of_sessions.dtype))
        if self.tokens == "sessions":
            n = of_sessions.shape[0]
            return self._placed(sessions.with_values(of_sessions)), torch.arange(n, device=vectors.device)
        return self._both(batch, vectors, of_sessions)

    def _both(self, batch: Batch, vectors: Tensor, of_sessions: Tensor) -> tuple[Jagged, Tensor]:
        """Put the vector of each session after those of its events."""
        events, sessions = batch.events, batch.sessions
        n, s = vectors.shape[0], of_sessions.shape[0]
        at = torch.arange(n, device=vectors.device) + batch.session_of_event
        stops = torch.cat([sessions.values[1:], sessions.values.new_full((1,), n)])[:s]
        ends = stops + torch.arange(s, device=vectors.device)
        values = vectors.new_zeros((n + s, vectors.shape[1]))
        values = values.index_copy(0, at, vectors).index_copy(0, ends, of_sessions.to(vectors.dtype))
        times = None
        if events.times is not None:
            times = events.times.new_empty(n + s)
            times[at] = events.times
            times[ends] = events.times[stops - 1]
        if isinstance(events, OneRow):
            return self._placed(OneRow.of_values(values, times, events.asked_at)), ends
        rows = Jagged(
            values, events.offsets + sessions.offsets, events.longest + sessions.longest, times, events.asked_at
        )
        return self._placed(rows), ends

    def _placed(self, rows: Jagged) -> Jagged:
        values = rows.values if self.scale == 1 else rows.values * self.scale
        if self.places is not None:
            values = values + self.places[rows.positions.clamp(max=len(self.places) - 1)]
        return rows.with_values(dropout(values, self.rate, self.training))


@dataclass(frozen=True, eq=False)
class Following:
    """What follows the sessions of a batch."""

    session: Tensor  # (M,) sessions, counted over the batch, that are followed by one with wanted items
    items: Tensor  # (P,) distinct wanted items of the first such session
    of_query: Tensor  # (P,) place in `session` of each, never falling
    shown: Tensor  # (I,) distinct items that were shown in it and not wanted
    of: Tensor  # (I,) place in `session` of each, never falling


def following(batch: Batch) -> Following:
    """Return what is wanted, and what is shown and ignored, in the first later session of the row with a wanted event.

    An item both wanted and ignored in a session is wanted.
    """
    events, sessions = batch.events.values, batch.sessions
    of_event, n, device = batch.session_of_event, len(sessions.values), events.device
    places = torch.arange(n, device=device)
    target = torch.full((n + 1,), n, device=device)
    if batch.labels is None:
        target[:n] = places
    else:
        some = torch.zeros(n, dtype=torch.int64, device=device).index_add(0, of_event, batch.labels)
        target[:n] = torch.where(some > 0, places, n)
    target = target.flip(0).cummin(0).values.flip(0)[1:]  # of each session, the first later one with something wanted
    asks = torch.nonzero(target < sessions.offsets[1:][sessions.rows]).squeeze(1)
    starts = torch.cat([sessions.values, sessions.values.new_full((1,), len(events))])
    asked = target[asks]
    counts = starts[asked + 1] - starts[asked]
    of_query = torch.repeat_interleave(counts)
    begins = torch.cumsum(counts, 0) - counts
    at = starts[asked][of_query] + torch.arange(len(of_query), device=device) - begins[of_query]
    key = of_query * (int(events.max()) + 1 if len(events) else 1) + events[at]
    if batch.labels is None:
        return Following(asks, *_distinct(key, events[at], of_query), events[:0], events[:0])
    liked = batch.labels[at] == 1
    wanted = _distinct(key[liked], events[at][liked], of_query[liked])
    ignored = ~liked & ~torch.isin(key, key[liked])
    return Following(asks, *wanted, *_distinct(key[ignored], events[at][ignored], of_query[ignored]))


def _distinct(key: Tensor, items: Tensor, of_query: Tensor) -> tuple[Tensor, Tensor]:
    """Return each pair of item and query once, queries never falling."""
    order = torch.argsort(key, stable=True)
    key = key[order]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    order = order[first]
    return items[order], of_query[order]


@dataclass(frozen=True, eq=False)
class Answers:
    """What was wanted next in the sessions that were cut."""

    of_row: Tensor  # (B,) bool: was the last session of the row cut?
    items: Tensor  # (rows that were cut,) item codes


def cut_last_sessions(batch: Batch) -> tuple[Batch, Answers]:
    """Cut the last session of each row at random, so that something wanted follows.

    Of the events after which something wanted follows in the session one is drawn, all alike; it stays with what
    came before it, and what was wanted next is the answer, asked for at its own time.  A last session without such an
    event stays whole and has no answer.
    """
    events, sessions = batch.events, batch.sessions
    n, device = len(events.values), events.offsets.device
    if n == 0:
        return batch, Answers(torch.zeros(len(batch), dtype=torch.bool, device=device), events.values)
    some = events.lengths > 0
    stop = events.offsets[1:]
    begin = torch.zeros_like(stop)
    begin[some] = sessions.values[(sessions.offsets[1:] - 1)[some]]
    last_wanted = stop - 1
    if batch.labels is not None:
        places = torch.where(batch.labels == 1, torch.arange(n, device=device), -1).cummax(0).values
        last_wanted = torch.where(some, places[(stop - 1).clamp(min=0)], -1)
    room = last_wanted - begin  # events of the session before its last wanted one
    is_cut = some & (room > 0)
    keep = 1 + (torch.rand(len(batch), device=device) * room).long().clamp(max=(room - 1).clamp(min=0))
    end = torch.where(is_cut, begin + keep, stop)  # (B,) events of the row that stay end here
    answer = end.clone()
    if batch.labels is not None:
        following_wanted = torch.where(batch.labels == 1, torch.arange(n, device=device), n)
        following_wanted = following_wanted.flip(0).cummin(0).values.flip(0)
        answer[is_cut] = following_wanted[end[is_cut]]
    answer = answer[is_cut]
    asked_at = events.asked_at
    if events.times is not None and asked_at is not None:
        asked_at = asked_at.clone()
        asked_at[is_cut] = events.times[answer]
    stays = torch.nonzero(torch.arange(n, device=device) < end[events.rows]).squeeze(1)
    lengths = end - events.offsets[:-1]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    gone = stop - events.offsets[:-1] - lengths  # events cut from each row
    before = torch.cat([gone.new_zeros(1), gone.cumsum(0)])[:-1]  # and from those before it
    times = None if events.times is None else events.times[stays]
    cut = Batch(
        Jagged(events.values[stays], offsets, events.longest, times, asked_at),
        Jagged(sessions.values - before[sessions.rows], sessions.offsets, sessions.longest, sessions.times, asked_at),
        None if batch.labels is None else batch.labels[stays],
        None if batch.actions is None else batch.actions[stays],
        batch.weights,
    )
    return cut, Answers(is_cut, events.values[answer])
