"""Additive attention: what a state pays attention to is weighed by `w . sigmoid(query + key)`, without a softmax.

Li et al., Neural attentive session-based recommendation, CIKM 2017; Liu et al., STAMP, KDD 2018.  Each query has a
range of keys of its own, so every beginning of a session can ask at once.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from nextsession.compiled import compiled_fast
from nextsession.tiles import exponential

_Matrix = NDArray[np.float32]
_ONE = np.float32(1)


def additive_attention(
    queries: Tensor, keys: Tensor, values: Tensor, weight: Tensor, starts: Tensor, stops: Tensor
) -> Tensor:
    """Return `out[m] = sum over starts[m] <= t < stops[m] of (weight . sigmoid(queries[m] + keys[t])) values[t]`.

    Args:
        queries: `(M, A)`.
        keys: `(N, A)`.
        values: `(N, D)`.
        weight: `(A,)`.
        starts: `(M,)` int64, the first key of each query.
        stops: `(M,)` int64, the first that is not its own any more.

    Returns:
        `(M, D)`; zeros where there is no key.  Float32 on a CPU runs in compiled code and holds nothing a pair.
    """
    if torch.compiler.is_exporting():  # one row, and all of it is asked about
        return (torch.sigmoid(queries + keys) @ weight)[None] @ values
    if queries.device.type != "cpu" or queries.dtype != torch.float32:
        return additive_attention_plainly(queries, keys, values, weight, starts, stops)
    result: Tensor = _Additive.apply(queries, keys, values, weight, starts, stops)  # type: ignore[no-untyped-call]
    return result


def additive_attention_plainly(
    queries: Tensor, keys: Tensor, values: Tensor, weight: Tensor, starts: Tensor, stops: Tensor
) -> Tensor:
    """Compute `additive_attention` from a vector for every pair of a query and a key, for any type on any device."""
    counts = (stops - starts).clamp(min=0)
    query = torch.repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    key = torch.arange(len(query), device=query.device) - before[query] + starts[query]
    weights = torch.sigmoid(queries[query] + keys[key]) @ weight
    found = values.new_zeros((len(queries), values.shape[1]))
    return found.index_add(0, query, (weights[:, None] * values[key]).to(values.dtype))


class _Additive(torch.autograd.Function):
    """The compiled form; the sigmoids are computed again on the way back."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, weight: Tensor, starts: Tensor, stops: Tensor
    ) -> Tensor:
        given = [x.contiguous() for x in (queries, keys, values, weight, starts, stops)]
        out = values.new_zeros((len(queries), values.shape[1]))
        q, k, v, w, first, past = (x.detach().numpy() for x in given)
        _forward(q, k, v, w, first, past, out.numpy())
        ctx.save_for_backward(*given)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        found = [torch.zeros_like(x) for x in given[:4]]
        q, k, v, w, first, past, g = (x.detach().numpy() for x in (*given, gradient.contiguous()))
        to_q, to_k, to_v, to_w = (x.numpy() for x in found)
        _backward(q, k, v, w, first, past, g, to_q, to_k, to_v, to_w)
        return *found, None, None


@compiled_fast
def _forward(
    queries: _Matrix,
    keys: _Matrix,
    values: _Matrix,
    weight: _Matrix,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    out: _Matrix,
) -> None:
    for m in range(len(queries)):
        query, total = queries[m], out[m]
        for t in range(starts[m], stops[m]):
            key, value = keys[t], values[t]
            found = np.float32(0)
            for a in range(len(weight)):
                found += weight[a] / (_ONE + exponential(-(query[a] + key[a])))
            for d in range(len(total)):
                total[d] += found * value[d]


@compiled_fast
def _backward(
    queries: _Matrix,
    keys: _Matrix,
    values: _Matrix,
    weight: _Matrix,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    gradients: _Matrix,
    to_queries: _Matrix,
    to_keys: _Matrix,
    to_values: _Matrix,
    to_weight: _Matrix,
) -> None:
    sigmoids = np.empty(len(weight), np.float32)
    for m in range(len(queries)):
        query, gradient, to_query = queries[m], gradients[m], to_queries[m]
        for t in range(starts[m], stops[m]):
            key, value, to_key, to_value = keys[t], values[t], to_keys[t], to_values[t]
            # Sums have loops of their own: one that also writes is run in vectors or not as memory happens to lie.
            for a in range(len(weight)):
                sigmoids[a] = _ONE / (_ONE + exponential(-(query[a] + key[a])))
            found = slope = np.float32(0)
            for a in range(len(weight)):
                found += weight[a] * sigmoids[a]
            for d in range(len(gradient)):
                slope += gradient[d] * value[d]
            for d in range(len(gradient)):
                to_value[d] += found * gradient[d]
            for a in range(len(weight)):
                to_weight[a] += slope * sigmoids[a]
                step = slope * weight[a] * sigmoids[a] * (_ONE - sigmoids[a])
                to_query[a] += step
                to_key[a] += step
