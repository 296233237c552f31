"""Dropout whose mask is computed, not kept: each number's fate is a hash of a seed and of its place.

Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 2014.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nextsession.compiled import compiled_fast
from nextsession.nn.ops.work import flat, kept_above, seed
from nextsession.tiles import Floats, bits_at, key_of

_STREAM = 1 << 16  # numbers that share a key


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Set a share `p` of the numbers to 0 while training, and multiply the others by `1 / (1 - p)`.

    Float32 on a CPU runs in compiled code, several times as fast as PyTorch draws its masks there, one
    number after another; `torch.manual_seed` decides the mask.  Other tensors go to PyTorch.

    Raises:
        ValueError: `p` is not from 0 to less than 1.
    """
    dropped, kept = kept_above(p)
    if not training or not dropped or x.numel() == 0:
        return x
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return functional.dropout(x, p)
    result: Tensor = _Dropout.apply(x, dropped, kept, seed())  # type: ignore[no-untyped-call]
    return result


class _Dropout(torch.autograd.Function):
    """The compiled form; the backward computes the mask again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int, kept: np.float32, seed: int) -> Tensor:
        ctx.mask = dropped, kept, seed
        return _masked(x, dropped, kept, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _masked(grad, *ctx.mask), None, None, None


def _masked(x: Tensor, dropped: int, kept: np.float32, seed: int) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    _mask(flat(x), flat(out), dropped, kept, seed)
    return out


@compiled_fast
def _mask(x: Floats, out: Floats, dropped: int, kept: np.float32, seed: int) -> None:
    limit, zero = np.uint32(dropped), np.float32(0)
    for start in range(0, len(x), _STREAM):
        key, source, line = key_of(seed, start // _STREAM), x[start : start + _STREAM], out[start : start + _STREAM]
        for n in range(len(source)):
            line[n] = source[n] * kept if bits_at(key, np.uint32(n)) >= limit else zero
