"""HSTU blocks over jagged rows: attention by SiLU instead of softmax, gated, without a feed-forward part.

Zhai et al., Actions speak louder than words: trillion-parameter sequential transducers for
generative recommendations, ICML 2024; details are those of the authors' public research code.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextsession.nn.jagged import Jagged
from nextsession.nn.networks import CausalEncoder
from nextsession.nn.ops.dropout import dropout
from nextsession.nn.ops.silu_attention import N_BUCKETS, bucket_of, silu_attention, time_buckets

_EPS = 1e-6  # of the layer norms; attention of new weights is as small as its root, so it is part of the model
_STD = 0.02
_ROOM = 11  # the authors' rows have room for ten more events and one


@dataclass(frozen=True)
class HSTUForm:
    """What a block looks like."""

    longest: int
    """Longest row, `Lmax`."""
    heads: int = 1
    dqk: int = 64
    """Width of a query or a key of one head."""
    dv: int = 64
    """Width of a value of one head."""
    positions: bool = True
    """Is there a bias for each distance of two places?"""
    times: bool = True
    """Is there a bias for the time from an event to what follows another?  Rows need times then."""
    normaliser: Literal["constant", "length"] = "length"
    """What sums over events are divided by: one number for all, or how many events there are."""
    concat: bool = False
    """Does the last map see the gate and what was attended to beside their product?"""
    rate: float = 0.2
    """Dropout."""


class HSTUBlock(nn.Module):
    """Attention that is weighed by a gate and added to the stream.

    ```
    [U|V|Q|K] = SiLU(LN(X) W)
    A[i, j]   = SiLU(Q[i] K[j] + by_distance[j - i] + by_time[bucket(t[i + 1] - t[j])]) / n    for j <= i, else 0
    X'        = X + Dropout(U * LN(A V)) W' + b'
    ```

    Layer norms have no weights; biases are shared by the heads; `t[i + 1]` after the newest event is
    the instant of the question.  `n` is a constant or `i + 1`, never the length of a row or of a
    batch: a state depends neither on what follows it nor on its company.
    """

    def __init__(self, dim: int, form: HSTUForm) -> None:
        """Build the maps of a block `dim` wide."""
        super().__init__()
        self.form = form
        self.widths = [form.heads * form.dv] * 2 + [form.heads * form.dqk] * 2
        self.of_input = nn.Linear(dim, sum(self.widths), bias=False)
        self.project = nn.Linear(form.heads * form.dv * (3 if form.concat else 1), dim)
        self.by_distance = nn.Parameter(torch.empty(2 * form.longest - 1)) if form.positions else None
        self.by_time = nn.Parameter(torch.empty(N_BUCKETS)) if form.times else None
        for drawn in (self.of_input.weight, self.by_distance, self.by_time):
            if drawn is not None:
                nn.init.normal_(drawn, std=_STD)
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, rows: Jagged, buckets: Tensor | None) -> Tensor:
        """Map vectors `(N, D)` to vectors `(N, D)`; `buckets` are those of `time_buckets`."""
        x, form = rows.values, self.form
        gate, v, q, k = torch.split(functional.silu(self.of_input(_norm(x))), self.widths, dim=-1)
        attended = silu_attention(
            q, k, v, rows.offsets, rows.longest,
            heads=form.heads,
            normaliser=self._constant,
            position_bias=self.by_distance,
            time_bias=self.by_time,
            buckets=buckets,
        )  # fmt: skip
        return self._added(x, gate, attended, rows.positions)

    def newest(self, rows: Jagged) -> Tensor:
        """Map vectors `(N, D)` to those of the newest event of each row, `(B, D)`; anything for an empty row."""
        form, of_row = self.form, rows.rows
        at = (rows.offsets[1:] - 1).clamp(min=0)
        of_gate, of_v, of_q, of_k = torch.split(self.of_input.weight, self.widths)
        seen = _norm(rows.values)
        v, k = torch.split(functional.silu(seen @ torch.cat([of_v, of_k]).T), self.widths[1::2], dim=-1)
        gate, q = torch.split(functional.silu(seen[at] @ torch.cat([of_gate, of_q]).T), self.widths[::2], dim=-1)
        by_head = (rows.values.shape[0], form.heads, -1)
        scores = (q[of_row].view(by_head) * k.view(by_head)).sum(-1, keepdim=True)
        if self.by_distance is not None:
            scores = scores + self.by_distance[form.longest - 1 - rows.from_end][:, None, None]
        if self.by_time is not None:
            assert rows.times is not None
            assert rows.asked_at is not None
            if torch.compiler.is_exporting():
                buckets = bucket_of(rows.asked_at - rows.times)
            else:
                alone = torch.arange(len(of_row) + 1, device=of_row.device)
                buckets = time_buckets(rows.times, rows.asked_at[of_row], alone).int()
            scores = scores + self.by_time[buckets][:, None, None]
        weighed = functional.silu(scores) / self._constant * v.view(by_head)
        attended = rows.with_values(weighed.flatten(1)).sum()
        return self._added(rows.values[at], gate, attended, (rows.lengths - 1).clamp(min=0))

    @property
    def _constant(self) -> float:
        """What sums are divided by if that is one number."""
        return float(self.form.longest + _ROOM) if self.form.normaliser == "constant" else 1.0

    def _added(self, x: Tensor, gate: Tensor, attended: Tensor, positions: Tensor) -> Tensor:
        """Add what was attended to, weighed by the gate, to the stream at some places."""
        if self.form.normaliser == "length":
            attended = attended / (positions + 1).to(attended.dtype)[:, None]
        attended = _norm(attended)
        part = gate * attended
        if self.form.concat:
            part = torch.cat([gate, attended, part], dim=-1)
        added: Tensor = self.project(dropout(part, self.form.rate, self.training))
        return x + added


class HSTUEncoder(CausalEncoder):
    """HSTU blocks one after another over rows of vectors.

    Row `i` knows when the event after it happens (the question, after the newest) if `form.times`,
    and otherwise nothing of what comes after it.
    """

    def __init__(self, dim: int, layers: int, form: HSTUForm) -> None:
        """Build `layers` blocks, `dim` wide."""
        super().__init__()
        self.timed = form.times
        self.blocks = nn.ModuleList(HSTUBlock(dim, form) for _ in range(layers))

    def forward(self, rows: Jagged) -> Tensor:
        """Map vectors `(N, D)` to states `(N, D)`.

        Raises:
            ValueError: Blocks are biased by time, and the rows have none.
        """
        return self._through(self.blocks, rows).values

    def last(self, rows: Jagged) -> Tensor:
        """Return the state after the last value of each row, `(B, D)`; of the last block no more is computed."""
        if rows.values.shape[0] == 0:
            return super().last(rows)
        *first, final = self.blocks
        assert isinstance(final, HSTUBlock)
        return final.newest(self._through(first, rows))

    def _through(self, blocks: Iterable[nn.Module], rows: Jagged) -> Jagged:
        if self.timed and (rows.times is None or rows.asked_at is None):
            raise ValueError("attention is biased by time, and these rows have none")
        if rows.values.shape[0] == 0:
            return rows
        buckets = None
        for block in blocks:
            if self.timed and buckets is None:
                assert rows.times is not None
                if torch.compiler.is_exporting():
                    buckets = bucket_of(rows.next_times[:, None] - rows.times[None])
                else:
                    buckets = time_buckets(rows.times, rows.next_times, rows.offsets)
            rows = rows.with_values(block(rows, buckets))
        return rows


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=_EPS)
