"""Pointwise attention over packed rows, with SiLU in place of the softmax, and biases by distance and by time.

Zhai et al., Actions speak louder than words: trillion-parameter sequential transducers for
generative recommendations (HSTU), ICML 2024.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nextsession.nn.ops import silu_kernels
from nextsession.nn.ops.padding import check_table, heads_packed, heads_padded, may_attend, places, relative
from nextsession.nn.ops.silu_kernels import Shape
from nextsession.nn.ops.work import flat, in_parts

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
        buckets: Those of `time_buckets`, for these offsets.

    Raises:
        ValueError: One of `time_bias` and `buckets` without the other, or a bias table that does not fit.
    """
    if torch.compiler.is_exporting():
        return _of_one_row(q, k, v, heads, normaliser, position_bias, time_bias, buckets)
    if q.device.type != "cpu" or q.dtype != torch.float32:
        return silu_attention_plainly(
            q, k, v, offsets, longest, heads=heads, normaliser=normaliser,
            position_bias=position_bias, time_bias=time_bias, buckets=buckets,
        )  # fmt: skip
    _check_time(time_bias, buckets)
    middle = 0 if position_bias is None else check_table(position_bias, longest)
    shape = Shape(
        heads=heads,
        width=q.shape[1] // heads,
        value_width=v.shape[1] // heads,
        share=np.float32(1 / normaliser),
        middle=middle,
    )
    result: Tensor = _SiluAttention.apply(  # type: ignore[no-untyped-call]
        q,
        k,
        v,
        q.new_empty(0) if position_bias is None else position_bias,
        q.new_empty(0) if time_bias is None else time_bias,
        torch.empty(0, dtype=torch.uint8) if buckets is None else buckets,
        offsets,
        shape,
    )
    return result


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
    _check_time(time_bias, buckets)
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


def _of_one_row(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    normaliser: float,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    buckets: Tensor | None,
) -> Tensor:
    """Compute `silu_attention` of one row, in the form that is exported; `buckets` are `(N, N)`."""
    n = q.shape[0]  # not its length, which would be taken for a constant
    place = torch.arange(n)
    queries, keys, values = (x.view(n, heads, -1).transpose(0, 1) for x in (q, k, v))
    scores = queries @ keys.mT
    if position_bias is not None:
        scores = scores + position_bias[len(position_bias) // 2 + place[None] - place[:, None]]
    if time_bias is not None and buckets is not None:
        scores = scores + time_bias[buckets]
    weights = functional.silu(scores) * ((place[None] <= place[:, None]).to(q.dtype) / normaliser)
    return (weights @ values).transpose(0, 1).flatten(1)


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
    if times.device.type != "cpu":
        return time_buckets_plainly(times, next_times, offsets)
    starts = offsets.numpy()
    buckets = torch.empty(int(_pairs_before(starts)[-1]), dtype=torch.uint8)
    happened, asked = times.contiguous().numpy(), next_times.contiguous().numpy()
    silu_kernels.fill_buckets(happened, asked, starts, _edges(), buckets.numpy())
    return buckets


def time_buckets_plainly(times: Tensor, next_times: Tensor, offsets: Tensor) -> Tensor:
    """Compute `time_buckets` by the formula, on any device."""
    longest = int((offsets[1:] - offsets[:-1]).max()) if len(offsets) > 1 else 0
    at = places(offsets, longest, len(times))
    asked, happened = (
        x.new_zeros((len(offsets) - 1) * longest).index_copy(0, at, x).view(-1, longest) for x in (next_times, times)
    )
    seconds = (asked[:, :, None] - happened[:, None, :]).abs().double() / 1000
    return _bucket(seconds)[_pairs(offsets, longest)]


def bucket_of(apart: Tensor) -> Tensor:
    """Return the bucket of times so far apart, `(...)` int64 ms, by the formula, as int64."""
    return _bucket(apart.abs().double() / 1000).to(torch.int64)


def _bucket(seconds: Tensor) -> Tensor:
    return (seconds.clamp(min=1).log() / _STEP).floor().clamp(max=N_BUCKETS - 1).to(torch.uint8)


@cache
def _edges() -> NDArray[np.int64]:
    """Return the least distance in ms of each bucket from 1 on, exactly as the formula rounds."""
    near = np.exp(_STEP * np.arange(1, N_BUCKETS)) * 1000
    edges = []
    for bucket, distance in enumerate(near[near < 2**61].tolist(), start=1):  # no two events are further apart
        low, high = 0, 2 * int(distance)  # the formula puts the first below the bucket and the second into it
        while high - low > 1:
            middle = (low + high) // 2
            inside = int(_bucket(torch.tensor(middle).double() / 1000)) >= bucket
            low, high = (low, middle) if inside else (middle, high)
        edges.append(high)
    return np.array(edges, np.int64)


def _pairs_before(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the pairs of each row begin, and the number of all, `(B+1,)`."""
    lengths = np.diff(offsets)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths * (lengths + 1) // 2)])


def _check_time(time_bias: Tensor | None, buckets: Tensor | None) -> None:
    if (time_bias is None) != (buckets is None):
        raise ValueError("a bias by time needs buckets, and buckets need a bias")
    if time_bias is not None and len(time_bias) != N_BUCKETS:
        raise ValueError(f"a bias by time has {N_BUCKETS} numbers, not {len(time_bias)}")


def _pairs(offsets: Tensor, longest: int) -> Tensor:
    """Return which pairs of places hold a token and one not older than it, `(B, L, L)` bool, queries first."""
    lengths = offsets[1:] - offsets[:-1]
    place = torch.arange(longest, device=offsets.device)
    return (place[:, None] < lengths[:, None, None]) & (place[None, :] <= place[:, None])


class _SiluAttention(torch.autograd.Function):
    """The compiled form and its gradients to q, k, v and both biases."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        position: Tensor,
        time: Tensor,
        buckets: Tensor,
        offsets: Tensor,
        shape: Shape,
    ) -> Tensor:
        q, k, v, position, time = (x.contiguous() for x in (q, k, v, position, time))
        out = torch.empty_like(v)
        given = flat(q), flat(k), flat(v)
        starts = offsets.numpy()
        biases, places = (flat(position), flat(time)), (buckets.numpy(), _pairs_before(starts))

        def attend(rows: tuple[int, int]) -> None:
            silu_kernels.forward(*given, starts, rows, shape, *biases, *places, flat(out))

        in_parts(starts, attend)
        ctx.save_for_backward(q, k, v, position, time, buckets, offsets)
        ctx.shape = shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, position, time, buckets, offsets = ctx.saved_tensors
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        given, filled = (flat(q), flat(k), flat(v)), (flat(grads[0]), flat(grads[1]), flat(grads[2]))
        starts, change = offsets.numpy(), flat(grad.contiguous())
        biases, places = (flat(position), flat(time)), (buckets.numpy(), _pairs_before(starts))

        def attend(rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
            found = torch.zeros_like(position), torch.zeros_like(time)
            shape: Shape = ctx.shape
            silu_kernels.backward(
                *given, starts, rows, shape, *biases, *places, change, *filled, flat(found[0]), flat(found[1])
            )
            return found

        parts = in_parts(starts, attend)
        by_place = sum((part[0] for part in parts), start=torch.zeros_like(position))
        by_time = sum((part[1] for part in parts), start=torch.zeros_like(time))
        return *grads, by_place if len(position) else None, by_time if len(time) else None, None, None, None
