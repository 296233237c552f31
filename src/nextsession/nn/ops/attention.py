"""Softmax attention over packed rows: every token attends to tokens of its own row.

Vaswani et al., Attention is all you need, NeurIPS 2017; the causal form is that of Kang and
McAuley, Self-attentive sequential recommendation, ICDM 2018.  On a CPU no padding is computed and
nothing of the size of the attention matrix is kept (as in Dao et al., FlashAttention, NeurIPS 2022).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nextsession.nn.ops import attention_kernels
from nextsession.nn.ops.attention_kernels import Shape
from nextsession.nn.ops.padding import check_table, heads_packed, heads_padded, may_attend, places, relative
from nextsession.nn.ops.work import flat, in_parts, kept_above, seed


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    longest: int,
    *,
    heads: int,
    causal: bool,
    dropout: float = 0.0,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Return `softmax(scale q k^T + bias) v` of each row and head, `(N, H*Dh)`.

    Args:
        q: Queries, `(N, H*Dh)`, head after head, rows end to end.
        k: Keys, likewise.
        v: Values, likewise.
        offsets: Where rows begin, `(B+1,)` int64; rows may be empty.
        longest: At least the length of the longest row.
        heads: `H`.
        causal: A token attends to itself and to older ones only; otherwise to its whole row.
        dropout: The share of attention weights that are zeroed, the others being scaled up; 0 outside training.
        bias: Added to the scores, by distance: `(1 or H, 2*Lmax - 1)`, of `j - i` at `Lmax - 1 + j - i`.
        scale: What scores are multiplied by; `1 / sqrt(Dh)` by default.

    Float32 on a CPU runs in compiled code.  Other types there take the plain form, and GPUs PyTorch's own kernel.
    """
    if q.device.type != "cpu":
        return softmax_attention_fused(
            q, k, v, offsets, longest, heads=heads, causal=causal, dropout=dropout, bias=bias, scale=scale
        )
    if q.dtype != torch.float32:
        return softmax_attention_plainly(
            q, k, v, offsets, longest, heads=heads, causal=causal, dropout=dropout, bias=bias, scale=scale
        )
    middle = 0 if bias is None else check_table(bias, longest)
    width = q.shape[1] // heads
    table = q.new_empty((0, 0)) if bias is None else bias
    limit, kept = kept_above(dropout)
    shape = Shape(
        heads=heads,
        width=width,
        causal=causal,
        scale=np.float32(width**-0.5 if scale is None else scale),
        middle=middle,
        line=table.shape[1] if len(table) > 1 else 0,
        dropped=limit,
        kept=kept,
        seed=seed() if limit else 0,
    )
    result: Tensor = _Attention.apply(q, k, v, table, offsets, shape)  # type: ignore[no-untyped-call]
    return result


def softmax_attention_of_newest(
    q: Tensor, k: Tensor, v: Tensor, *, heads: int, causal: bool, alone: bool, bias: Tensor | None = None
) -> Tensor:
    """Return `softmax_attention` of one row, `(M, H*Dh)`, in the form that is exported.

    Args:
        q: Queries, `(M, H*Dh)`: of all tokens, or of the newest.
        k: Keys of all tokens, `(N, H*Dh)`.
        v: Values, likewise.
        heads: `H`.
        causal: As there.
        alone: Is the only query that of the newest token?
        bias: As there.
    """
    n, width = k.shape[0], q.shape[1] // heads
    queries, keys, values = (x.view(-1, heads, width).transpose(0, 1) for x in (q, k, v))
    scores = queries @ keys.mT * width**-0.5
    key = torch.arange(n)
    query = key[-1:] if alone else key
    if bias is not None:
        scores = scores + bias[..., bias.shape[-1] // 2 + key[None] - query[:, None]]
    if causal and not alone:
        scores = scores.masked_fill(key[None] > query[:, None], torch.finfo(scores.dtype).min)
    found: Tensor = (scores.softmax(-1) @ values).transpose(0, 1).flatten(1)
    return found


def softmax_attention_plainly(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    longest: int,
    *,
    heads: int,
    causal: bool,
    dropout: float = 0.0,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute `softmax_attention` with explicit matrices of all pairs of places, for any type on any device."""
    at = places(offsets, longest, len(q))
    queries, keys, values = (heads_padded(x, at, len(offsets) - 1, longest, heads) for x in (q, k, v))
    scores = queries @ keys.mT * (queries.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + relative(bias, longest)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    scores = scores.masked_fill(~may_attend(offsets, longest, causal), torch.finfo(scores.dtype).min)
    weights = functional.dropout(scores.softmax(-1), dropout).to(values.dtype)
    return heads_packed(weights @ values, at)


def softmax_attention_fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    longest: int,
    *,
    heads: int,
    causal: bool,
    dropout: float = 0.0,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute `softmax_attention` with PyTorch's fused attention on the padded view, for GPUs.

    Padding lies on the right, so causal attention without a bias needs no mask.
    """
    at = places(offsets, longest, len(q))
    queries, keys, values = (heads_padded(x, at, len(offsets) - 1, longest, heads) for x in (q, k, v))
    mask = None if causal and bias is None else may_attend(offsets, longest, causal)
    if mask is not None and bias is not None:
        mask = relative(bias, longest).to(q.dtype).masked_fill(~mask, -torch.inf)
    attended = functional.scaled_dot_product_attention(
        queries, keys, values, mask, dropout, is_causal=mask is None, scale=scale
    )
    return heads_packed(attended, at)


class _Attention(torch.autograd.Function):
    """The compiled form and its gradients to q, k, v and the bias."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, offsets: Tensor, shape: Shape) -> Tensor:
        q, k, v, bias = (x.contiguous() for x in (q, k, v, bias))
        out, log_sums = torch.empty_like(q), q.new_empty(shape.heads * len(q))
        arrays = flat(q), flat(k), flat(v)
        table, filled = flat(bias), (flat(out), flat(log_sums))
        starts = offsets.numpy()

        def attend(rows: tuple[int, int]) -> None:
            attention_kernels.forward(*arrays, starts, rows, shape, table, *filled)

        in_parts(starts, attend)
        ctx.save_for_backward(q, k, v, bias, offsets, out, log_sums)
        ctx.shape = shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, offsets, out, log_sums = ctx.saved_tensors
        given = flat(q), flat(k), flat(v)
        rest = flat(bias), flat(out), flat(log_sums), flat(grad.contiguous())
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        filled = flat(grads[0]), flat(grads[1]), flat(grads[2])
        starts = offsets.numpy()

        def attend(rows: tuple[int, int]) -> Tensor:
            grad_bias = torch.zeros_like(bias)
            attention_kernels.backward(*given, starts, rows, ctx.shape, *rest, *filled, flat(grad_bias))
            return grad_bias

        grad_bias = sum(in_parts(starts, attend), start=torch.zeros_like(bias))
        return *grads, grad_bias if len(bias) else None, None, None
