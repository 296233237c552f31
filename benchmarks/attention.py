"""What attention and dropout cost: `python benchmarks/attention.py [--save FILE]`.

CPU milliseconds, forwards and backwards, the best of some repeats, of one layer of attention over a
batch: of the compiled form over packed rows, of PyTorch's fused attention on the padded view, and
of explicit matrices.
Lengths are drawn like those of MovieLens-1M (at most 200 events, about half of the users have
fewer) or like those of sessions.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.attention import softmax_attention, softmax_attention_fused, softmax_attention_plainly

REPEATS = 7
FORMS = {"compiled": softmax_attention, "fused": softmax_attention_fused, "plain": softmax_attention_plainly}
SHAPES = (  # data, rows, H, Dh, causal, dropout
    ("ml-1m", 128, 1, 64, True, 0.0),
    ("ml-1m", 128, 1, 64, True, 0.1),
    ("ml-1m", 128, 2, 32, True, 0.0),
    ("ml-1m", 128, 1, 50, True, 0.0),
    ("ml-1m", 128, 2, 25, True, 0.0),
    ("ml-1m", 128, 1, 64, False, 0.0),
    ("sessions", 512, 1, 64, True, 0.0),
    ("sessions", 512, 2, 32, True, 0.0),
)


def lengths_like(data: str, rows: int) -> Tensor:
    rng = np.random.default_rng(0)
    if data == "sessions":
        return torch.tensor(np.minimum(rng.geometric(0.2, rows), 20))
    return torch.tensor(np.minimum(20 + rng.lognormal(4.2, 1.1, rows).astype(int), 200))


def cpu_ms(work: Callable[[], object]) -> float:
    """The CPU time of a call, of the best of some repeats after one."""
    work()
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return round(1000 * min(taken), 2)


def step(attend: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(attend(*inputs), inputs, grad)


def attention() -> list[dict[str, object]]:
    table = []
    for data, rows, heads, width, causal, dropout in SHAPES:
        lengths = lengths_like(data, rows)
        offsets = functional.pad(lengths.cumsum(0), (1, 0))
        tokens, longest = int(offsets[-1]), int(lengths.max())
        q, k, v, grad = torch.randn(4, tokens, heads * width).unbind()
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        row: dict[str, object] = {
            "data": data, "tokens": tokens, "heads": heads, "width": width, "causal": causal, "dropout": dropout,
        }  # fmt: skip
        for name, form in FORMS.items():

            def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return form(q, k, v, offsets, longest, heads=heads, causal=causal, dropout=dropout)  # noqa: B023

            row[name] = cpu_ms(step(attend, inputs, grad))
        pairs = int((lengths * (lengths + 1) // 2 if causal else lengths**2).sum())
        row["GFLOP/s"] = round(7 * 2 * pairs * heads * width / row["compiled"] / 1e6, 1)
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    rows = attention()
    print(*rows[0], sep="\t")
    for row in rows:
        print(*row.values(), sep="\t")
    if chosen.save:
        chosen.save.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
