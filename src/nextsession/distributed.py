"""Several processes that train one network: each takes a share of every batch, and gradients are summed.

`torchrun` starts the processes and says by environment variables who is who; `joined` lets them
meet.  All hold the same weights at all times, and one, the first, validates and writes.
"""

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from nextsession.errors import ConfigError
from nextsession.nn.embedding import ItemEmbedding

_CPU = torch.device("cpu")
_PATIENCE = timedelta(hours=12)
"""The others wait while the first validates; a process that is lost is noticed by `torchrun`, not by this."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU
    """What messages are sent from: a GPU can send only what is in its memory."""

    @property
    def first(self) -> bool:
        """Is it this process that validates, writes and reports?"""
        return self.rank == 0

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of a batch that this process takes; all shares together are the batch."""
        return rows[self.rank :: self.size]

    def wait(self) -> None:
        """Return once all processes have come here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1, device=self.device))

    def told(self, value: float) -> float:
        """Return the value of the first process, in all."""
        if self.size == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(number, 0)
        return float(number)

    def told_bytes(self, content: bytes) -> bytes:
        """Return the bytes of the first process, in all."""
        if self.size == 1:
            return content
        length = int(self.told(len(content)))
        if not self.first:
            content = bytes(length)
        numbers = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device) if length else None
        if numbers is None:
            return b""
        dist.broadcast(numbers, 0)
        return bytes(numbers.cpu().numpy())

    def sum_gradients(self, network: nn.Module, numbers: list[float | Tensor]) -> Tensor:
        """Sum the gradients of a network and some numbers over all processes, in one message.

        A process whose share taught nothing has no gradients, and takes part all the same.

        Args:
            network: Its gradients are changed in place.
            numbers: Scalars.

        Returns:
            Their sums, float32.
        """
        tables = [m.weight for m in network.modules() if isinstance(m, ItemEmbedding) and m.sparse]
        by_rows = {id(table) for table in tables}
        weights = [p for p in network.parameters() if p.requires_grad and id(p) not in by_rows]
        said = torch.stack([torch.as_tensor(n, dtype=torch.float32, device=self.device).detach() for n in numbers])
        has = torch.tensor([float(p.grad is not None) for p in weights], device=self.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        message = torch.cat([said, has, *(part.detach().flatten().float() for part in parts)])
        dist.all_reduce(message)
        sums, some, end = message[: len(said)], message[len(said) :][: len(has)].tolist(), len(said) + len(has)
        for weight, one_has in zip(weights, some, strict=True):
            begin, end = end, end + weight.numel()
            weight.grad = message[begin:end].view_as(weight).to(weight.dtype) if one_has else None
        for table in tables:
            table.grad = self._gathered(table)
        return sums

    def _gathered(self, table: Tensor) -> Tensor:
        """Return the sum of the gradients of a table, of which each process has some rows."""
        own = torch.zeros_like(table).to_sparse(1) if table.grad is None else table.grad
        own = (own if own.is_sparse else own.to_sparse(1)).coalesce()
        rows, values = own._indices()[0], own._values()
        counts = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=self.device))
        longest = max(int(count) for count in counts)
        spare = longest - len(rows)
        all_rows = [rows.new_zeros(longest) for _ in counts]
        all_values = [values.new_zeros((longest, values.shape[1])) for _ in counts]
        dist.all_gather(all_rows, torch.nn.functional.pad(rows, (0, spare)))
        dist.all_gather(all_values, torch.nn.functional.pad(values, (0, 0, 0, spare)))
        return torch.sparse_coo_tensor(
            torch.cat([some[: int(n)] for some, n in zip(all_rows, counts, strict=True)])[None],
            torch.cat([some[: int(n)] for some, n in zip(all_values, counts, strict=True)]),
            table.shape,
            check_invariants=False,
        ).coalesce()


ALONE = Processes()
"""One process, as nearly always."""


def started_together() -> bool:
    """Was this process started as one of several, by `torchrun` or the like?"""
    return _number("WORLD_SIZE", 1) > 1


def joined(device: torch.device) -> Processes:
    """Meet the processes started together with this one; alone where there are none.

    They stay together until the program ends.

    Args:
        device: Where this process computes; `gloo` carries messages between CPUs, `nccl` between GPUs.

    Raises:
        ConfigError: There should be others, and what is needed to find them is missing.
    """
    if not dist.is_available() or not (dist.is_initialized() or started_together()):
        return ALONE
    if not dist.is_initialized():
        _meet(device)
    return Processes(dist.get_rank(), dist.get_world_size(), device)


def _meet(device: torch.device) -> None:
    """Find the others; once, since addresses of a first meeting would be taken for those of a second."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set: start with torchrun, or "
            "unset WORLD_SIZE to train in one process."
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    atexit.register(_part)


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def local_rank() -> int:
    """Return which of the processes on this machine this is."""
    return _number("LOCAL_RANK", 0)


def _number(variable: str, otherwise: int) -> int:
    try:
        return int(os.environ.get(variable, otherwise))
    except ValueError:
        raise ConfigError(f"{variable} must be a whole number, got {os.environ[variable]!r}.") from None
