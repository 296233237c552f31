"""Faster products of float32 matrices on processors where they stay exact to float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@cache
def is_exact() -> bool:
    """Does the faster library (oneDNN) multiply in true float32 here?

    PyTorch hands float32 products to it only when told that bfloat16 would do ("medium").  It then
    uses bfloat16 where the processor multiplies tiles of it (AMX), and float32 elsewhere; rather
    than trust a list of processors, two matrices whose product bfloat16 cannot hold are multiplied.
    """
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or torch.cpu._is_amx_tile_supported():
        return False
    before = torch.get_float32_matmul_precision()
    ones = torch.ones(256, 256)
    torch.set_float32_matmul_precision("medium")
    try:
        product = (ones + 2**-12) @ ones
    finally:
        torch.set_float32_matmul_precision(before)
    return bool((product - 256 * (1 + 2**-12)).abs().max() < 2**-10)


@contextmanager
def fast_matmul() -> Iterator[None]:
    """Multiply float32 matrices on the CPU by oneDNN inside the block where that is exact; on CUDA nothing changes.

    The setting of the process is restored after.  On an AMD Zen 4 a product of 512 x 64 by 64 x 3417 takes 1.2
    to 1.3 times less time than by MKL, at the same error of 1e-7.
    """
    if torch.cuda.is_available() or not is_exact():
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
