"""How tensors reach compiled loops: views without a copy, rows shared among threads, seeds of dropout."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

R = TypeVar("R")

SMALL = 500_000
"""Pairs of tokens below which a second thread costs more than it saves."""


def flat(x: Tensor) -> NDArray[np.float32]:
    """Return the values of a contiguous tensor on the CPU, `(n,)`, not copied."""
    array: NDArray[np.float32] = x.detach().view(-1).numpy()
    return array


def seed() -> int:
    """Draw a seed for a compiled loop from torch's generator, so that `torch.manual_seed` decides it."""
    return int(torch.randint(2**62, ()))


def kept_above(dropout: float) -> tuple[int, np.float32]:
    """Return the 32-bit number below which a random one means dropped, and the factor of what is kept.

    Raises:
        ValueError: Not a share from 0 to less than 1.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a share from 0 to less than 1, not {dropout}")
    return min(round(dropout * 2**32), 2**32 - 1), np.float32(1 / (1 - dropout))


def in_parts(offsets: NDArray[np.int64], work: Callable[[tuple[int, int]], R]) -> list[R]:
    """Return what `work` makes of rows `(first, end)`: of all at once, or of a part of equal cost in each thread.

    The cost of a row is supposed to grow as the square of its length.
    """
    threads = torch.get_num_threads()
    costs = np.cumsum(np.diff(offsets) ** 2)
    if threads == 1 or len(costs) == 0 or costs[-1] < SMALL:
        return [work((0, len(costs)))]
    inner = np.searchsorted(costs, costs[-1] * np.arange(1, threads) / threads)
    edges = [0, *inner.tolist(), len(costs)]
    return list(_pool(threads).map(work, pairwise(edges)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):  # a forked child has the pool, but none of its threads: work would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)
