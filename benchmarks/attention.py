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
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nextsession.nn.ops.attention import softmax_attention, softmax_attention_fused, softmax_attention_plainly
from nextsession.nn.ops.dropout import dropout
from nextsession.nn.ops.silu_attention import N_BUCKETS, silu_attention, silu_attention_plainly, time_buckets

REPEATS = 4
SOFTMAX = {"compiled": softmax_attention, "fused": softmax_attention_fused, "plain": softmax_attention_plainly}
SILU = {"compiled": silu_attention, "plain": silu_attention_plainly}
SOFTMAX_SHAPES = (  # data, rows, H, Dh, causal, dropout
    ("ml-1m", 128, 1, 64, True, 0.0),
    ("ml-1m", 128, 1, 64, True, 0.1),
    ("ml-1m", 128, 2, 32, True, 0.0),
    ("ml-1m", 128, 1, 50, True, 0.0),
    ("ml-1m", 128, 2, 25, True, 0.0),
    ("ml-1m", 128, 1, 64, False, 0.0),
    ("sessions", 512, 1, 64, True, 0.0),
    ("sessions", 512, 2, 32, True, 0.0),
)
SILU_SHAPES = (  # data, rows, H, Dh, biased
    ("ml-1m", 128, 1, 50, True),
    ("ml-1m", 128, 2, 25, True),
    ("ml-1m", 128, 1, 64, False),
    ("sessions", 512, 1, 50, True),
)

COLUMNS = (
    "weights", "data", "tokens", "heads", "width", "causal", "dropout", "biased", "buckets",
    "compiled", "fused", "plain", "GFLOP/s",
)  # fmt: skip

Row = dict[str, object]


def offsets_like(data: str, rows: int) -> Tensor:
    rng = np.random.default_rng(0)
    if data == "sessions":
        lengths = np.minimum(rng.geometric(0.2, rows), 20)
    else:
        lengths = np.minimum(20 + rng.lognormal(4.2, 1.1, rows).astype(int), 200)
    return torch.tensor(np.concatenate([[0], lengths.cumsum()]))


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


def softmax(data: str, rows: int, heads: int, width: int, causal: bool, dropped: float) -> Row:
    offsets = offsets_like(data, rows)
    lengths, tokens = offsets.diff(), int(offsets[-1])
    *inputs, grad = (torch.randn(tokens, heads * width, requires_grad=True) for _ in range(4))
    row: Row = {
        "weights": "softmax", "data": data, "tokens": tokens, "heads": heads, "width": width,
        "causal": causal, "dropout": dropped, "biased": False,
    }  # fmt: skip
    fixed = {"heads": heads, "causal": causal, "dropout": dropped}
    for name, form in SOFTMAX.items():
        row[name] = cpu_ms(
            step(partial(form, offsets=offsets, longest=int(lengths.max()), **fixed), inputs, grad.detach())
        )
    pairs = int((lengths * (lengths + 1) // 2 if causal else lengths**2).sum())
    return row | {"GFLOP/s": round(7 * 2 * pairs * heads * width / row["compiled"] / 1e6, 1)}


def silu(data: str, rows: int, heads: int, width: int, biased: bool) -> Row:
    offsets = offsets_like(data, rows)
    lengths, tokens, longest = offsets.diff(), int(offsets[-1]), int(offsets.diff().max())
    *inputs, grad = (torch.randn(tokens, heads * width, requires_grad=True) for _ in range(4))
    row: Row = {
        "weights": "silu", "data": data, "tokens": tokens, "heads": heads, "width": width,
        "causal": True, "dropout": 0.0, "biased": biased,
    }  # fmt: skip
    fixed = {"offsets": offsets, "longest": longest, "heads": heads, "normaliser": 211.0}
    if biased:
        times = torch.randint(100_000, (tokens,)).cumsum(0)
        fixed["buckets"] = time_buckets(times, times.roll(-1), offsets)
        row["buckets"] = cpu_ms(lambda: time_buckets(times, times.roll(-1), offsets))
        inputs += [torch.randn(2 * longest - 1, requires_grad=True), torch.randn(N_BUCKETS, requires_grad=True)]
    for name, form in SILU.items():

        def attend(
            q: Tensor, k: Tensor, v: Tensor, by_place: Tensor | None = None, by_time: Tensor | None = None
        ) -> Tensor:
            return form(q, k, v, position_bias=by_place, time_bias=by_time, **fixed)  # noqa: B023

        row[name] = cpu_ms(step(attend, inputs, grad.detach()))
    pairs = int((lengths * (lengths + 1) // 2).sum())
    return row | {"GFLOP/s": round(7 * 2 * pairs * heads * width / row["compiled"] / 1e6, 1)}


def dropouts() -> Row:
    x = torch.randn(13_870, 64, requires_grad=True)
    forms = {"compiled": partial(dropout, p=0.2, training=True), "plain": partial(functional.dropout, p=0.2)}
    return {"numbers": x.numel()} | {name: cpu_ms(step(form, [x], x.detach())) for name, form in forms.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    print(*COLUMNS, sep="\t")
    rows = []
    for measure, shapes in ((softmax, SOFTMAX_SHAPES), (silu, SILU_SHAPES)):
        for shape in shapes:
            rows.append(measure(*shape))
            print(*(rows[-1].get(name, "") for name in COLUMNS), sep="\t", flush=True)
    dropped = dropouts()
    print("dropout", dropped)
    if chosen.save:
        found = {"threads": torch.get_num_threads(), "cpu_ms": rows, "dropout_cpu_ms": dropped}
        chosen.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
