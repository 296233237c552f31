"""What a step of the loss costs: `python benchmarks/cross_entropy.py [--save FILE]`.

CPU milliseconds of one thread, forwards and backwards, the best of some repeats, for random queries
and items of 64 numbers: of cross-entropy over all items and of cross-entropy against sampled
negatives, in PyTorch's own functions and in the forms of this package.  `products` is what the three
matrix products of the loss cost alone, the floor of the full softmax.  `error` is the distance of
the gradients from those in float64, relative to their length.  Each is measured with the default
library of products (MKL) and with the faster one (oneDNN) where that is exact.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.losses import SampledSoftmax
from nextsession.nn.negatives import InBatch, ItemStatistics, NegativeSampler, Uniform
from nextsession.nn.networks import Examples
from nextsession.nn.ops import cross_entropy
from nextsession.nn.ops.cross_entropy import Precision, gradients_plainly, linear_cross_entropy
from nextsession.nn.ops.gathered_scores import gathered_scores_plainly
from nextsession.nn.ops.matmul import fast_matmul

REPEATS = 2
DIM = 64
SHAPES = ((13_568, 3_417), (1_024, 37_500), (256, 100_000))  # queries, items
EIGHTH = 8  # what would take gigabytes is measured on so much less, and multiplied

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


class TiedHead:
    """A head that is its table."""

    sparse = False

    def __init__(self, table: Tensor) -> None:
        self.vectors = table

    def table(self) -> tuple[Tensor, None]:
        """Return all items."""
        return self.vectors, None

    def rows(self, codes: Tensor) -> tuple[Tensor, None]:
        """Return some items."""
        return self.vectors[codes], None


def plain(queries: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(queries @ table.T, targets)


def blocks(precision: Precision) -> Step:
    return lambda q, t, y: linear_cross_entropy(q, t, None, y, precision=precision)


def blocks_plainly(precision: Precision) -> Step:
    def step(q: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with patch.object(cross_entropy, "gradients_compiled", gradients_plainly):
            return linear_cross_entropy(q, t, None, y, precision=precision)

    return step


def products(precision: Precision) -> Step:
    """The products alone, over the same blocks: forwards, and in the place of gradients."""

    def step(q: Tensor, t: Tensor, y: Tensor) -> Tensor:
        loss, _ = cross_entropy.through_blocks(q, t, precision, lambda *_: 0.0, True, biased=False)
        return loss + 0 * (q[0, 0] + t[0, 0])

    return step


def sampled(negatives: NegativeSampler, precision: Precision = "float32") -> Step:
    loss = SampledSoftmax(negatives=negatives, precision=precision)

    def step(q: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return loss(Examples(q, y, users=torch.arange(len(q)) // 100), TiedHead(t), ItemStatistics(torch.ones(len(t))))  # type: ignore[arg-type]

    return step


def sampled_plainly(n: int, shared: bool) -> Step:
    def step(q: Tensor, t: Tensor, y: Tensor) -> Tensor:
        ups = (q * t[y]).sum(-1, keepdim=True)
        if shared:
            downs = q @ t[torch.randint(len(t), (n,))].T
        else:
            downs = gathered_scores_plainly(q, t, torch.randint(len(t), (len(q), n)))
        return functional.cross_entropy(torch.cat([ups, downs], 1), torch.zeros_like(y))

    return step


def steps() -> dict[str, tuple[Step, int]]:
    """Return what is measured by name, and on which part of the queries."""
    found: dict[str, tuple[Step, int]] = {
        "full, PyTorch's functions": (plain, 1),
        "full, blocks in PyTorch's functions": (blocks_plainly("float32"), 1),
        "full, blocks in PyTorch's functions, bfloat16": (blocks_plainly("bfloat16"), 1),
        "full, blocks, compiled": (blocks("float32"), 1),
        "full, blocks, compiled, bfloat16": (blocks("bfloat16"), 1),
        "products": (products("float32"), 1),
        "products, bfloat16": (products("bfloat16"), 1),
    }
    for n in (256, 2048):
        found[f"{n} shared, PyTorch's functions"] = (sampled_plainly(n, True), 1)
        found[f"{n} shared, compiled"] = (sampled(Uniform(n=n, per="batch")), 1)
    found["2048 shared, compiled, bfloat16"] = (sampled(Uniform(n=2048, per="batch"), "bfloat16"), 1)
    found["256 each, PyTorch's functions"] = (sampled_plainly(256, False), EIGHTH)
    found["256 each, compiled"] = (sampled(Uniform(n=256)), 1)
    found["in-batch, compiled"] = (sampled(InBatch()), 1)
    return found


def cpu_ms(work: Callable[[], object]) -> float:
    """The CPU time of a call, of the best of some repeats after one."""
    work()
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return round(1000 * min(taken), 1)


def gradients(step: Step, queries: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(step(queries, table, targets), [queries, table])])


def measured(n_queries: int, n_items: int) -> list[dict[str, object]]:
    queries = (0.5 * torch.randn(n_queries, DIM)).requires_grad_()
    table = (0.5 * torch.randn(n_items, DIM)).requires_grad_()
    targets = torch.randint(n_items, (n_queries,))
    few = max(n_queries // EIGHTH, 128)
    exact = gradients(plain, queries[:few].double(), table.double(), targets[:few])
    rows = []
    for name, (step, part) in steps().items():
        row: dict[str, object] = {"queries": n_queries, "items": n_items, "loss": name}
        some, wanted = queries[: n_queries // part], targets[: n_queries // part]
        for library, context in (("MKL", nullcontext), ("oneDNN", fast_matmul)):
            with context():
                row[library] = round(part * cpu_ms(lambda: gradients(step, some, table, wanted)), 1)  # noqa: B023
        if name.startswith("full"):
            with fast_matmul():
                found = gradients(step, queries[:few], table, targets[:few])
            row["error"] = f"{((found - exact).norm() / exact.norm()).item():.1e}"
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print("queries", "items", "loss", "MKL", "oneDNN", "error", sep="\t")
    rows: list[dict[str, object]] = []
    for shape in SHAPES:
        rows += measured(*shape)
        if chosen.save:
            chosen.save.write_text(json.dumps({"threads": 1, "dim": DIM, "cpu_ms": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
