"""Transformer blocks over jagged rows, in the forms of the field: SASRec's own, pre- and post-norm, gated."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextsession.nn.jagged import Jagged
from nextsession.nn.networks import CausalEncoder
from nextsession.nn.ops.attention import softmax_attention, softmax_attention_of_newest
from nextsession.nn.ops.dropout import dropout


@dataclass(frozen=True)
class BlockForm:
    """What a block looks like."""

    heads: int = 1
    norm: Literal["original", "pre", "post"] = "pre"
    """Of SASRec (queries are normalised and are what is added to; keys and values are not), before, or after."""
    ffn: Literal["relu", "gelu", "swiglu"] = "gelu"
    inner: int = 4
    """Width of the feed-forward part, in multiples of the width of the block."""
    gated: bool = False
    """LiGR: what a part adds is weighed by a sigmoid of the stream it is added to."""
    causal: bool = True
    rate: float = 0.1
    """Dropout, of attention weights too."""
    inner_rate: float | None = None
    """Dropout between the two maps of the feed-forward part; None: `rate` (BERT has none there)."""
    bias: bool = True
    """Have the linear maps of attention a bias?"""
    project: bool = True
    """Is there a linear map after attention?"""
    eps: float = 1e-8
    """Of the layer norms."""
    relative: int = 0
    """Rows up to this long have a learned bias for each distance of two places; 0: none."""


class Block(nn.Module):
    """Attention and a feed-forward part, each added to the stream.

    `original` (Kang & McAuley 2018): `Q = LN(X)`, `Y = Q + Attention(Q, X, X)`, `Z = LN(Y)`, `Z + FFN(Z)`.
    `pre`: `Y = X + Attention(LN(X))`, `Y + FFN(LN(Y))`.  `post` (BERT): `Y = LN(X + Attention(X))`,
    `LN(Y + FFN(Y))`.  Gated (LiGR, eSASRec): each sum is `X + sigmoid(X W) * part`.
    """

    def __init__(self, dim: int, form: BlockForm) -> None:
        """Build the maps of a block `dim` wide."""
        super().__init__()
        self.form = form
        self.attention_norm = nn.LayerNorm(dim, eps=form.eps)
        self.ffn_norm = nn.LayerNorm(dim, eps=form.eps)
        self.of_query = nn.Linear(dim, dim, bias=form.bias)
        self.of_key_value = nn.Linear(dim, 2 * dim, bias=form.bias)
        self.project = nn.Linear(dim, dim, bias=form.bias) if form.project else None
        inner = form.inner * dim
        self.widen = nn.Linear(dim, 2 * inner if form.ffn == "swiglu" else inner, bias=form.ffn != "swiglu")
        self.narrow = nn.Linear(inner, dim, bias=form.ffn != "swiglu")
        self.attention_gate = nn.Linear(dim, dim) if form.gated else None
        self.ffn_gate = nn.Linear(dim, dim) if form.gated else None
        self.distances = nn.Parameter(torch.zeros(form.heads, 2 * form.relative - 1)) if form.relative else None

    def forward(self, rows: Jagged, at: Tensor | None = None) -> Tensor:
        """Map vectors `(N, D)` to vectors `(N, D)`, or to those at the places `at` alone, `(M, D)`."""
        x, form = rows.values, self.form
        if form.norm == "post":
            x = self.attention_norm(self._add(_some(x, at), self._attend(x, x, rows, at), self.attention_gate))
            return self.ffn_norm(self._add(x, self._feed(x), self.ffn_gate))  # type: ignore[no-any-return]
        q = self.attention_norm(x)
        if form.norm == "original":
            x = self._add(_some(q, at), self._attend(q, x, rows, at), self.attention_gate)
            z = self.ffn_norm(x)
            return self._add(z, self._feed(z), self.ffn_gate)
        x = self._add(_some(x, at), self._attend(q, q, rows, at), self.attention_gate)
        return self._add(x, self._feed(self.ffn_norm(x)), self.ffn_gate)

    def _attend(self, queries: Tensor, others: Tensor, rows: Jagged, at: Tensor | None) -> Tensor:
        form = self.form
        keys, values = self.of_key_value(others).chunk(2, dim=-1)
        if torch.compiler.is_exporting():
            asked = self.of_query(_some(queries, at))
            found = softmax_attention_of_newest(
                asked, keys, values, heads=form.heads, causal=form.causal, alone=at is not None, bias=self.distances
            )
            return found if self.project is None else self.project(found)
        found = softmax_attention(
            self.of_query(queries),
            keys,
            values,
            rows.offsets,
            rows.longest,
            heads=form.heads,
            causal=form.causal,
            dropout=form.rate if self.training else 0.0,
            bias=self.distances,
        )
        found = _some(found, at)
        return found if self.project is None else self.project(found)

    def _feed(self, x: Tensor) -> Tensor:
        form = self.form
        inner = self.widen(x)
        if form.ffn == "swiglu":
            gate, inner = inner.chunk(2, dim=-1)
            inner = F.silu(gate) * inner
        else:
            inner = F.relu(inner) if form.ffn == "relu" else F.gelu(inner)
        rate = form.rate if form.inner_rate is None else form.inner_rate
        return self.narrow(dropout(inner, rate, self.training))  # type: ignore[no-any-return]

    def _add(self, stream: Tensor, part: Tensor, gate: nn.Linear | None) -> Tensor:
        part = dropout(part, self.form.rate, self.training)
        return stream + (part if gate is None else gate(stream).sigmoid() * part)


class Transformer(CausalEncoder):
    """Blocks one after another over rows of vectors; a layer norm at the end unless blocks end in one.

    Two-way blocks (`causal=False`) see the whole row; the name of the base says what causal ones keep.
    """

    def __init__(self, dim: int, layers: int, form: BlockForm) -> None:
        """Build `layers` blocks, `dim` wide."""
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, form) for _ in range(layers))
        self.norm = nn.Identity() if form.norm == "post" else nn.LayerNorm(dim, eps=form.eps)

    def forward(self, rows: Jagged, at: Tensor | None = None) -> Tensor:
        """Map vectors `(N, D)` to states `(N, D)`, or to those at the places `at` alone, `(M, D)`, which is cheaper."""
        *first, final = self.blocks
        for block in first:
            rows = rows.with_values(block(rows))
        return self.norm(final(rows, at))  # type: ignore[no-any-return]

    def last(self, rows: Jagged) -> Tensor:
        """Return the state after the last value of each row, `(B, D)`."""
        if rows.values.shape[0] == 0:
            return super().last(rows)
        return self(rows, (rows.offsets[1:] - 1).clamp(min=0))  # type: ignore[no-any-return]


def _some(x: Tensor, at: Tensor | None) -> Tensor:
    return x if at is None else x[at]
