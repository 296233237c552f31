"""Training is an iterator: `epochs` yields after each, and the caller looks, logs, keeps or stops.

Every step draws its random numbers from a seed of its own, made of the seed, the epoch and the step.
So a step can be repeated: training that was killed goes on from the last checkpoint and ends bit for
bit where it would have ended, and no random state has to be kept.  It also lets several processes
draw the same negatives.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from nextsession.distributed import ALONE, Processes
from nextsession.errors import TrainingError
from nextsession.nn.batches import TrainingRows
from nextsession.nn.networks import Examples, Network
from nextsession.nn.ops.matmul import fast_matmul
from nextsession.nn.optimisers import Optimiser, OptimiserSettings, clip, gradients
from nextsession.progress import Progress, silent
from nextsession.training_state import TrainingState, load_state, save_state

__all__ = ["Epoch", "TrainingSettings", "TrainingState", "epochs", "factor", "load_state", "save_state", "start"]

Objective = Callable[[Examples, Network], Tensor]
"""The mean loss of the positives of a batch."""

_LOOK = 50
"""Steps between two looks at the loss on a device that computes while we go on."""
_TELL = 0.2
"""Seconds between two reports of progress."""
_ASTRAY = 1000
"""A loss that many times the first (or 1) is not coming back."""


class TrainingSettings(OptimiserSettings):
    """How a network is trained; every neural model has these settings."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the rows of training, at most."""
    batch_size: int = Field(default=128, ge=1)
    """Rows in a step, at most; of all processes together if there are several."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Events in a step, at most; none: no limit."""
    schedule: Literal["constant", "cosine", "linear", "step"] = "constant"
    """How the learning rate falls: not, to a twentieth, to nothing, or tenfold every `step_epochs`."""
    step_epochs: int = Field(default=3, ge=1)
    """Epochs between two falls of the schedule `step`."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of all steps in which the learning rate rises to its size."""
    clip: float = Field(default=0.0, ge=0)
    """Longest gradient, over all weights together; 0: any length."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Answers are given by an average of the weights that forgets this slowly (.999, say), and faster in the first
    steps, so that it is not full of weights that know nothing; 0: by the weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products in the network; weights, sums and the loss are float32 either way."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the rows of training."""

    number: int
    """The first is 1."""
    loss: float
    """Mean over the positives."""
    positives: int
    """How many there were."""
    cpu_seconds: float
    """Of this process."""
    seconds: float
    learning_rate: float
    """At its end."""


def start(network: Network, settings: TrainingSettings) -> TrainingState:
    """Return the state before the first step."""
    state = TrainingState(network, Optimiser(network, settings))
    if settings.ema:
        state.average = {name: p.detach().clone() for name, p in network.named_parameters()}
    return state


def epochs(
    state: TrainingState,
    rows: TrainingRows,
    loss: Objective,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    name: str = "network",
    checkpoint: Callable[[TrainingState], None] | None = None,
    every: float = 60.0,
    progress: Progress = silent,
    processes: Processes = ALONE,
) -> Iterator[Epoch]:
    """Train from `state` on, yielding after each epoch.

    Args:
        state: As `start` or `load_state` gave it; changed in place.
        rows: What is trained on.
        loss: Mean over the positives of what the network makes of a batch.
        settings: How.
        seed: Of the order of the rows and of every step.
        device: Where the network is.
        name: Of the model, for messages.
        checkpoint: Told to keep the state between two steps, at least `every` seconds apart.
        every: Seconds.
        progress: Told of the steps taken, with the loss and the speed.
        processes: Which share of each batch is ours; all must call this with equal arguments.

    Raises:
        TrainingError: The loss is not a number or grows without end, or memory does not suffice.
    """
    passes = _Passes(state, rows, loss, settings, seed, device, name, processes, checkpoint, every, progress)
    while state.epoch < settings.epochs:
        with _training(state.network, device), enough_memory(name, settings):
            epoch = passes.epoch()
        yield epoch


@dataclass
class _Passes:
    """Passes over the rows: what is fixed while `state` changes."""

    state: TrainingState
    rows: TrainingRows
    loss: Objective
    settings: TrainingSettings
    seed: int
    device: torch.device
    name: str
    processes: Processes
    checkpoint: Callable[[TrainingState], None] | None
    every: float
    progress: Progress
    pending: list[tuple[Tensor, Tensor | int]] = field(default_factory=list)
    """Loss and number of positives of steps that were not looked at yet: that may mean to wait for the device."""
    told: float = 0.0
    kept: float = field(default_factory=time.monotonic)

    def epoch(self) -> Epoch:
        """Take the steps that are left of an epoch."""
        state, settings = self.state, self.settings
        order = self.rows.order(
            np.random.default_rng([self.seed, state.epoch, 0]), settings.batch_size, settings.batch_tokens
        )
        since, since_cpu = time.monotonic(), time.process_time()
        rate = settings.learning_rate

        def account() -> None:
            nonlocal since, since_cpu
            now, now_cpu = time.monotonic(), time.process_time()
            state.seconds, since = state.seconds + now - since, now
            state.cpu_seconds, since_cpu = state.cpu_seconds + now_cpu - since_cpu, now_cpu

        for step in range(state.step, len(order)):
            rate = settings.learning_rate * factor(settings, state.epoch, step, len(order))
            self.step(order[step], step, rate, len(order))
            state.step = step + 1
            if self.device.type == "cpu" or state.step % _LOOK == 0:
                self.look(len(order))
            now = time.monotonic()
            if now - self.told > _TELL or state.step == len(order):
                account()
                self.tell(len(order), rate)
            if self.checkpoint is not None and now - self.kept >= self.every and state.step < len(order):
                self.look(len(order))
                self.check_weights()  # ruined ones are not kept
                account()
                self.checkpoint(state)
                self.kept = time.monotonic()
        self.look(len(order))
        self.check_weights()
        account()
        done = Epoch(
            state.epoch + 1,
            state.total / max(1, state.positives),
            state.positives,
            state.cpu_seconds,
            state.seconds,
            rate,
        )
        state.epoch, state.step, state.total, state.positives = state.epoch + 1, 0, 0.0, 0
        state.seconds = state.cpu_seconds = 0.0
        self.kept = time.monotonic()  # whoever is told of the epoch keeps it
        return done

    def step(self, rows: NDArray[np.int64], step: int, rate: float, steps: int) -> None:
        """Teach the network a batch, of which other processes may take shares."""
        state, settings, processes = self.state, self.settings, self.processes
        network = state.network
        rng = np.random.default_rng([self.seed, state.epoch, step + 1])
        common = int(rng.integers(2**63))
        if processes.size > 1:  # what differs from row to row must not repeat from one process to the next
            rng = np.random.default_rng([self.seed, state.epoch, step + 1, processes.rank + 1])
        torch.manual_seed(int(rng.integers(2**63)))
        batch = self.rows.batch(processes.share(rows), rng).to(self.device)
        with _autocast(settings, self.device):
            examples = network.examples(batch)
        examples = replace(examples, queries=examples.queries.float())
        torch.manual_seed(common)  # all processes draw the same negatives
        value: Tensor | float = 0.0
        count: Tensor | int = len(examples)
        if processes.size == 1:
            if not len(examples):
                return
            value = self.loss(examples, network)
            value.backward()  # type: ignore[no-untyped-call]
            value = value.detach()
        else:
            weight: Tensor | float = 0.0
            if len(examples):
                weight = _weight(examples)
                value = self.loss(examples, network) * weight
                value.backward()  # type: ignore[no-untyped-call]
            sums = processes.sum_gradients(network, [value, weight, float(len(examples))])
            if not sums[2]:
                return
            total = sums[1].clamp(min=torch.finfo(torch.float32).tiny)
            torch._foreach_div_(gradients(network), total)
            value, count = sums[0] / total, sums[2]
        if settings.clip:
            clip(network, settings.clip)
        state.optimiser.step(rate)
        self.pending.append((value, count))
        if state.average is not None:
            taken = state.epoch * steps + step
            _average(state.average, network, min(settings.ema, (1 + taken) / (10 + taken)))

    def look(self, steps: int) -> None:
        """Add up the losses of the last steps.

        Raises:
            TrainingError: One is not a number, or far above the first of all.
        """
        state = self.state
        for loss, n in self.pending:
            value, count = float(loss), int(n)
            if state.first_loss is None:
                state.first_loss = value
            if not math.isfinite(value):
                raise self._astray(
                    f"the loss is not a number in epoch {state.epoch + 1}, by step {state.step} of {steps}"
                )
            if value > _ASTRAY * max(1.0, state.first_loss):
                raise self._astray(
                    f"the loss has grown from {state.first_loss:.3g} to {value:.3g} in epoch {state.epoch + 1}, "
                    f"by step {state.step} of {steps}"
                )
            state.total += value * count
            state.positives += count
        self.pending.clear()

    def check_weights(self) -> None:
        """Raise `TrainingError` if the last steps have ruined the weights."""
        sizes = [p.detach().abs().max() for p in self.state.network.parameters() if p.numel()]
        if sizes and not bool(torch.stack(sizes).isfinite().all()):
            raise self._astray(f"weights are not numbers in epoch {self.state.epoch + 1}, after step {self.state.step}")

    def tell(self, steps: int, rate: float) -> None:
        """Report how far training has come."""
        state, now = self.state, time.monotonic()
        self.told = now
        mean = state.total / max(1, state.positives)
        speed = state.positives / max(state.seconds, 1e-9)
        self.progress(
            f"{self.name}: training",
            state.epoch * steps + state.step,
            self.settings.epochs * steps,
            f"epoch {state.epoch + 1} of {self.settings.epochs} · loss {mean:.4f} · rate {rate:.2g} · "
            f"{thousands(speed)} positions/s",
        )

    def _astray(self, what: str) -> TrainingError:
        settings = self.settings
        return TrainingError(
            f"{self.name}: {what} (learning_rate = {settings.learning_rate:g}, precision = {settings.precision!r}). "
            "Lower learning_rate first; then clip = 1, or precision = 'float32'."
        )


def factor(settings: TrainingSettings, epoch: int, step: int, steps: int) -> float:
    """Return by what the learning rate is multiplied in a step of an epoch of `steps`, all counted from 0."""
    done, warm = epoch + step / steps, settings.warmup * settings.epochs
    if done < warm:
        return min(1.0, (done + 1 / steps) / warm)
    left = 1 - (done - warm) / (settings.epochs - warm)
    if settings.schedule == "cosine":
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (1 - left)))
    if settings.schedule == "linear":
        return left
    if settings.schedule == "step":
        return float(0.1 ** (epoch // settings.step_epochs))
    return 1.0


def thousands(number: float) -> str:
    """Write a number in three digits or so.

    >>> thousands(123456), thousands(987), thousands(2.5e6)
    ('123k', '987', '2.50M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            digits = max(0, 2 - int(math.log10(number / size)))
            return f"{number / size:.{digits}f}{letter}"
    return f"{number:.0f}"


@contextlib.contextmanager
def enough_memory(name: str, settings: TrainingSettings) -> Iterator[None]:
    """Say what to lower if memory does not suffice inside.

    Raises:
        TrainingError: It does not.
    """
    try:
        yield
    except TrainingError:  # from within, and said already
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_large(name, settings, error) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise _too_large(name, settings, error) from error


def _too_large(name: str, settings: TrainingSettings, error: BaseException) -> TrainingError:
    rows = f"{settings.batch_size} rows"
    if settings.batch_tokens is not None:
        rows += f" or {settings.batch_tokens} events"
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TrainingError(
        f"{name}: memory does not suffice for steps of {rows} ({said}). "
        "Lower batch_size or batch_tokens first; then max_length, dim, or the negatives that the loss draws."
    )


def _weight(examples: Examples) -> Tensor | float:
    """Return what the mean of a loss is divided by."""
    if examples.weights is None:
        return float(len(examples))
    weights = examples.weights if examples.of_query is None else examples.weights[examples.of_query]
    return weights.sum()


def _average(average: dict[str, Tensor], network: Network, slowly: float) -> None:
    names, weights = zip(*network.named_parameters(), strict=True)
    with torch.no_grad():
        torch._foreach_lerp_([average[name] for name in names], list(weights), 1 - slowly)


@contextlib.contextmanager
def _training(network: Network, device: torch.device) -> Iterator[None]:
    """Train within: fast products, no trace in the global generators."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), fast_matmul():
        network.train()
        try:
            yield
        finally:
            network.eval()


def _autocast(settings: TrainingSettings, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if settings.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
