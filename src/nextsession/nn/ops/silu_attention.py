"""Pointwise attention over packed rows, with SiLU in place of the softmax, and biases by distance and by time.

Zhai et al., Actions speak louder than words: trillion-parameter sequential transducers for
generative recommendations (HSTU), ICML 2024.
"""

import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.padding import heads_packed, heads_padded, may_attend, places, relative

N_BUCKETS = 129
"""How many buckets of time there are."""

_STEP = 0.301  # of the natural logarithm of seconds


def silu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    longest: int,
    *,
    heads: int,
    normaliser: float,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    buckets: Tensor | None = None,
) -> Tensor:
    """Return `silu(q k^T + bias) v / normaliser` of each row and head, each token seeing itself and older ones.

    Args:
        q: Queries, `(N, H*Dqk)`, head after head, rows end to end.
        k: Keys, likewise.
        v: Values, `(N, H*Dv)`.
        offsets: Where rows begin, `(B+1,)` int64; rows may be empty.
        longest: At least the length of the longest row.
        heads: `H`.
        normaliser: What the sums are divided by: one number for all batches, not the length of a row.
        position_bias: Added in all heads, by distance: `(2*Lmax - 1,)`, of `j - i` at `Lmax - 1 + j - i`.
        time_bias: Added likewise, by bucket of time, `(N_BUCKETS,)`; needs `buckets`.
        buckets: Those of `time_buckets`.

    Raises:
        ValueError: One of `time_bias` and `buckets` without the other, or a bias table that does not fit.
    """
    return silu_attention_plainly(
        q, k, v, offsets, longest, heads=heads, normaliser=normaliser,
        position_bias=position_bias, time_bias=time_bias, buckets=buckets,
    )  # fmt: skip


def silu_attention_plainly(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    longest: int,
    *,
    heads: int,
    normaliser: float,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    buckets: Tensor | None = None,
) -> Tensor:
    """Compute `silu_attention` with explicit matrices of all pairs of places, for any type on any device."""
    if (time_bias is None) != (buckets is None):
        raise ValueError("a bias by time needs buckets, and buckets need a bias")
    at = places(offsets, longest, len(q))
    queries, keys, values = (heads_padded(x, at, len(offsets) - 1, longest, heads) for x in (q, k, v))
    scores = queries @ keys.mT
    if position_bias is not None:
        scores = scores + relative(position_bias, longest)
    if time_bias is not None and buckets is not None:
        seen = _pairs(offsets, longest)
        by_pair = torch.zeros(seen.shape, dtype=torch.uint8, device=q.device).masked_scatter(seen, buckets)
        scores = scores + time_bias[by_pair.int()][:, None]
    weights = functional.silu(scores) / normaliser * may_attend(offsets, longest, causal=True)
    return heads_packed(weights @ values, at)


def time_buckets(times: Tensor, next_times: Tensor, offsets: Tensor) -> Tensor:
    """Return the bucket of the time from each token to what follows each later token of its row, or itself.

    For the tokens `j <= i` of a row it is that of `next_times[i] - times[j]`: `floor(ln(max(1, |seconds|)) / 0.301)`,
    at most 128.  One call serves all layers of a batch.

    Args:
        times: When each token happened, `(N,)` int64 ms.
        next_times: When what follows it happened, after the last of a row the question, `(N,)` int64 ms.
        offsets: Where rows begin, `(B+1,)` int64.

    Returns:
        uint8, row after row, in a row token `i` after token, and for each the tokens `j = 0..i`:
        `sum of n (n + 1) / 2` numbers over rows of `n` tokens.
    """
    return time_buckets_plainly(times, next_times, offsets)


def time_buckets_plainly(times: Tensor, next_times: Tensor, offsets: Tensor) -> Tensor:
    """Compute `time_buckets` by the formula, on any device."""
    longest = int((offsets[1:] - offsets[:-1]).max()) if len(offsets) > 1 else 0
    at = places(offsets, longest, len(times))
    asked, happened = (
        x.new_zeros((len(offsets) - 1) * longest).index_copy(0, at, x).view(-1, longest) for x in (next_times, times)
    )
    seconds = (asked[:, :, None] - happened[:, None, :]).abs().double() / 1000
    buckets = (seconds.clamp(min=1).log() / _STEP).floor().clamp(max=N_BUCKETS - 1)
    return buckets[_pairs(offsets, longest)].to(torch.uint8)


def _pairs(offsets: Tensor, longest: int) -> Tensor:
    """Return which pairs of places hold a token and one not older than it, `(B, L, L)` bool, queries first."""
    lengths = offsets[1:] - offsets[:-1]
    place = torch.arange(longest, device=offsets.device)
    return (place[:, None] < lengths[:, None, None]) & (place[None, :] <= place[:, None])
