"""What every adapter shares: the histories, the clock, the report.

It runs inside the environments of the peers, so it asks for NumPy and the standard library alone.
"""

import argparse
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

LONGEST = 200
"""Events of a history that a model of long histories reads."""
WIDTH = 64
"""Dimensions of its vectors."""
BATCH = 128
"""Histories of one training step."""
NEGATIVES = 256
"""Sampled negatives of a position, where a loss samples."""
SESSION_WIDTH = 100
"""Dimensions of a model of short sessions, as SR-GNN publishes."""
SESSION_BATCH = 100
"""Examples of one training step of a model of short sessions, as SR-GNN publishes."""
MASKED = 0.2
"""Chance that BERT4Rec hides an event."""


class EnoughError(Exception):
    """Raised inside a training loop that has no end of its own."""


@dataclass(frozen=True)
class Histories:
    """Training histories, oldest event first; items are 1..n_items, 0 stays free for padding."""

    items: np.ndarray
    offsets: np.ndarray
    n_items: int

    @classmethod
    def read(cls, path: Path) -> "Histories":
        """Read what `run.py` wrote."""
        with np.load(path) as file:
            return cls(file["items"], file["offsets"], int(file["n_items"]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lists(self) -> list[list[int]]:
        """Return the items of each history."""
        return [row.tolist() for row in np.split(self.items, self.offsets[1:-1])]

    def some(self, count: int) -> "Histories":
        """Keep so many histories drawn at random; the items stay as many as they were."""
        chosen = np.sort(np.random.default_rng(0).permutation(len(self))[:count])
        rows = [self.items[self.offsets[row] : self.offsets[row + 1]] for row in chosen]
        return Histories(np.concatenate(rows), np.cumsum([0, *map(len, rows)]), self.n_items)

    def prefixes(self) -> tuple[list[list[int]], list[int]]:
        """Return every prefix with the event after it: the examples that SR-GNN's preprocessing writes."""
        pairs = [(row[:end], row[end]) for row in self.lists() for end in range(1, len(row))]
        return [prefix for prefix, _ in pairs], [target for _, target in pairs]

    def targets(self, longest: int = LONGEST) -> int:
        """Count the events of one epoch that are predicted from at most `longest` events before them."""
        return int(np.minimum(np.diff(self.offsets) - 1, longest).clip(0).sum())


@dataclass
class Meter:
    """CPU time of `steps` training steps after `warm_up` steps, loading of batches included, set-up left out."""

    steps: int
    warm_up: int
    ended: int = 0
    positions: int = 0
    inputs: int = 0
    began: float = 0.0
    cpu_s: float | None = None
    losses: list[float] = field(default_factory=list)
    before_mb: float = 0.0

    def step(self, positions: int, inputs: int | None = None, loss: float | None = None) -> bool:
        """Note that a step ended; say whether it was the last.

        positions: predictions that an epoch over the log asks for; inputs: events read that are not padding.
        """
        self.ended += 1
        if loss is not None:
            self.losses.append(round(float(loss), 4))
        if self.ended <= self.warm_up:
            self.began = time.process_time()
            return False
        self.positions += positions
        self.inputs += positions if inputs is None else inputs
        if self.ended == self.warm_up + self.steps:
            self.cpu_s = time.process_time() - self.began
        return self.cpu_s is not None

    def whole(self, fit: Callable[[], object], positions: int) -> None:
        """Time one call from beginning to end."""
        self.began = time.process_time()
        fit()
        self.cpu_s = time.process_time() - self.began
        self.positions = self.inputs = positions


@dataclass(frozen=True)
class Task:
    """What an adapter is asked to time."""

    histories: Histories
    sources: Path
    meter: Meter


def peak_mb() -> float:
    """Peak resident memory of this process so far; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(models: Mapping[str, Callable[[Task], Mapping[str, object]]], packages: Iterable[str]) -> None:
    """Time the model that the command line names and print one JSON object as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=sorted(models))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sources", type=Path, default=Path())
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--precision", default="highest")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_float32_matmul_precision(given.precision)
    meter = Meter(given.steps, given.warm_up)
    histories = Histories.read(given.data)
    meter.before_mb = peak_mb()
    facts = models[given.model](Task(histories, given.sources, meter))
    if meter.cpu_s is None:
        sys.exit(f"only {meter.ended} steps were made, {meter.warm_up + meter.steps} were asked for")
    row = {
        "positions": meter.positions,
        "inputs": meter.inputs,
        "cpu_s": round(meter.cpu_s, 4),
        "losses": [meter.losses[0], meter.losses[-1]] if meter.losses else [],
        "before_mb": round(meter.before_mb),
        "peak_mb": round(peak_mb()),
        "facts": dict(facts),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "numpy", *packages)},
    }
    print(json.dumps(row), flush=True)


def parameters(model) -> int:
    """Count the trainable numbers of a torch module; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
