"""Training is an iterator: `epochs` yields after each, and the caller looks, logs, keeps or stops.

Every step draws its random numbers from a seed of its own, made of the seed, the epoch and the step.
So a step can be repeated: training that was killed goes on from the last checkpoint and ends bit for
bit where it would have ended, and no random state has to be kept.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextsession.config import Settings
from nextsession.errors import ArtifactError, TrainingError
from nextsession.files import whole_directory
from nextsession.nn.batches import Rows
from nextsession.nn.networks import Examples, Network
from nextsession.nn.ops.matmul import fast_matmul
from nextsession.progress import Progress, silent

_LOOK = 50
"""Steps between two looks at the loss on a device that computes while we go on."""


class TrainingSettings(Settings):
    """How a network is trained; every neural model has these settings."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the rows of training, at most."""
    batch_size: int = Field(default=128, ge=1)
    """Rows in a step, at most."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Events in a step, at most; none: no limit."""
    optimiser: Literal["adam", "adamw", "adagrad", "sgd"] = "adam"
    """What turns gradients into steps."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Size of the steps."""
    betas: tuple[float, float] = (0.9, 0.999)
    """How slowly the two moments of Adam forget."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty (`adam`, `adagrad`, `sgd`), or decay beside the gradient (`adamw`)."""
    schedule: Literal["constant", "cosine", "linear", "step"] = "constant"
    """How the learning rate falls: not, to a twentieth, to nothing, or tenfold every `step_epochs`."""
    step_epochs: int = Field(default=3, ge=1)
    """Epochs between two falls of the schedule `step`."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of all steps in which the learning rate rises to its size."""
    clip: float = Field(default=0.0, ge=0)
    """Longest gradient, over all weights together; 0: any length."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Answers are given by an average of the weights that forgets this slowly (.999, say); 0: by the weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products; sums and the loss are float32 either way."""


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
    seconds: float
    learning_rate: float
    """At its end."""


@dataclass
class TrainingState:
    """Everything that training changes: kept in checkpoints, and nowhere else."""

    network: Network
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor] | None = None
    """Averaged weights, if there are any."""
    epoch: int = 0
    """Epochs that are finished."""
    step: int = 0
    """Steps taken since then."""
    total: float = 0.0
    """Sum of the loss over the positives since then."""
    positives: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    best: dict[str, Tensor] | None = None
    """Weights of the best epoch so far, if somebody validates."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the caller keeps: the curve, the best score."""

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that answer: averaged ones if there are any."""
        found = dict(self.network.state_dict())
        if self.average is not None:
            found.update(self.average)
        return {name: weight.detach().clone() for name, weight in found.items()}


def start(network: Network, settings: TrainingSettings) -> TrainingState:
    """Return the state before the first step."""
    state = TrainingState(network, _optimiser(network, settings))
    if settings.ema:
        state.average = {name: p.detach().clone() for name, p in network.named_parameters()}
    return state


def epochs(
    state: TrainingState,
    rows: Rows,
    loss: Callable[[Examples, Network], Tensor],
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    name: str = "network",
    checkpoint: Callable[[TrainingState], None] | None = None,
    every: float = 60.0,
    progress: Progress = silent,
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
        checkpoint: Told to keep the state, at least `every` seconds apart, between two steps.
        every: Seconds.
        progress: Told of the steps taken.

    Raises:
        TrainingError: The loss is not a number, or memory does not suffice.
    """
    n_steps = len(rows.order(np.random.default_rng(0), settings.batch_size, settings.batch_tokens))
    while state.epoch < settings.epochs:
        order = rows.order(_rng(seed, state.epoch, -1), settings.batch_size, settings.batch_tokens)
        with _training(state.network, device):
            yielded = _epoch(
                state, rows, order, loss, settings, seed, device, name, n_steps, checkpoint, every, progress
            )
        yield yielded


def _epoch(
    state: TrainingState,
    rows: Rows,
    order: list[Any],
    loss: Callable[[Examples, Network], Tensor],
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    name: str,
    n_steps: int,
    checkpoint: Callable[[TrainingState], None] | None,
    every: float,
    progress: Progress,
) -> Epoch:
    network, optimiser = state.network, state.optimiser
    pending: list[tuple[Tensor, int]] = []
    kept = time.monotonic()
    began, began_cpu = time.monotonic(), time.process_time()

    def look() -> None:
        for value, count in pending:
            state.total += float(value) * count
            state.positives += count
        if pending and not math.isfinite(state.total):
            raise TrainingError(
                f"{name}: the loss is not a number in epoch {state.epoch + 1}, by step {state.step} of {len(order)} "
                f"(learning_rate = {settings.learning_rate:g}, precision = {settings.precision!r}). "
                "Lower learning_rate first; then clip = 1, or precision = 'float32'."
            )
        pending.clear()

    rate = settings.learning_rate
    for step in range(state.step, len(order)):
        rng = _rng(seed, state.epoch, step)
        torch.manual_seed(int(rng.integers(2**63)))
        rate = settings.learning_rate * factor(settings, state.epoch * n_steps + step, settings.epochs * n_steps, n_steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        try:
            batch = rows.batch(order[step], rng).to(device)
            with _autocast(settings, device):
                examples = network.examples(batch)
            if len(examples):
                value = loss(examples, network)
                value.backward()  # type: ignore[no-untyped-call]
                if settings.clip:
                    torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                pending.append((value.detach(), len(examples)))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise _too_large(name, settings, error) from error
        except RuntimeError as error:
            if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
                raise
            raise _too_large(name, settings, error) from error
        if state.average is not None:
            _average(state.average, network, settings.ema)
        state.step = step + 1
        if device.type == "cpu" or state.step % _LOOK == 0:
            look()
        progress(f"{name}: epoch {state.epoch + 1} of {settings.epochs}", state.step, len(order))
        if checkpoint is not None and time.monotonic() - kept > every:
            look()
            now, now_cpu = time.monotonic(), time.process_time()
            state.seconds, began = state.seconds + now - began, now
            state.cpu_seconds, began_cpu = state.cpu_seconds + now_cpu - began_cpu, now_cpu
            checkpoint(state)
            kept = time.monotonic()
    look()
    done = Epoch(
        number=state.epoch + 1,
        loss=state.total / max(1, state.positives),
        positives=state.positives,
        cpu_seconds=state.cpu_seconds + time.process_time() - began_cpu,
        seconds=state.seconds + time.monotonic() - began,
        learning_rate=rate,
    )
    state.epoch, state.step, state.total, state.positives = state.epoch + 1, 0, 0.0, 0
    state.seconds = state.cpu_seconds = 0.0
    return done


def factor(settings: TrainingSettings, step: int, total: int, per_epoch: int) -> float:
    """Return by what the learning rate is multiplied in a step, counted from 0, of `total`."""
    warm = round(settings.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    if settings.schedule == "cosine":
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "linear":
        return 1 - done
    if settings.schedule == "step":
        return float(0.1 ** (step // (per_epoch * settings.step_epochs)))
    return 1.0


# -- keeping ------------------------------------------------------------------------------------

FORMAT = 1


def save_state(state: TrainingState, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint: a directory of plain arrays and JSON, whole or not at all.

    Args:
        state: What training has changed so far.
        path: A directory; a checkpoint there is replaced.
        facts: What the training is of; `load_state` refuses a checkpoint whose facts differ.
    """
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in (state.average or {}).items()}
    tensors |= {f"best.{k}": v for k, v in (state.best or {}).items()}
    scalars: dict[str, Any] = {}
    for number, slots in state.optimiser.state_dict()["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{slot}"] = value
            else:
                scalars[f"{number}.{slot}"] = value
    names = ("epoch", "step", "total", "positives", "cpu_seconds", "seconds", "notes")
    content = {
        "format": FORMAT,
        "facts": dict(facts),
        "optimiser": scalars,
        "best": state.best is not None,
        "average": state.average is not None,
        **{name: getattr(state, name) for name in names},
    }
    with whole_directory(path) as scratch:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, scratch / "state.safetensors")
        (scratch / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_state(state: TrainingState, path: Path, facts: Mapping[str, Any]) -> None:
    """Take back what `save_state` wrote.

    Raises:
        ArtifactError: It is damaged, of a newer version, or of another training: the message says in what.
    """
    try:
        content = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "state.safetensors")
    except Exception as error:
        raise ArtifactError(f"{path} is no readable checkpoint: {error}. Remove it to start anew.") from error
    if content.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} has the format {content.get('format')!r}, this version reads {FORMAT}. Remove it to start anew."
        )
    for name, value in facts.items():
        if content["facts"].get(name) != value:
            raise ArtifactError(
                f"{path} is a checkpoint of another training: its {name} is {content['facts'].get(name)!r}, now it is "
                f"{value!r}. Choose another folder, or remove it to start anew."
            )
    try:
        _take_back(state, content, tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Remove it to start anew.") from error


def _take_back(state: TrainingState, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    device = next(state.network.parameters()).device
    state.network.load_state_dict(part("network."))
    slots: dict[int, dict[str, Any]] = {}
    for key, value in (part("optimiser.") | content["optimiser"]).items():
        number, _, slot = key.partition(".")
        slots.setdefault(int(number), {})[slot] = value
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": slots, "param_groups": groups})
    if content["average"]:
        state.average = {k: v.to(device) for k, v in part("average.").items()}
    if content["best"]:
        state.best = {k: v.to(device) for k, v in part("best.").items()}
    for name in ("epoch", "step", "total", "positives", "cpu_seconds", "seconds", "notes"):
        setattr(state, name, content[name])


# -- inside -------------------------------------------------------------------------------------


def _optimiser(network: Network, settings: TrainingSettings) -> torch.optim.Optimizer:
    weights = list(network.parameters())
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "adagrad":
        return torch.optim.Adagrad(weights, lr=rate, weight_decay=decay)
    if settings.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    return kind(weights, lr=rate, betas=settings.betas, weight_decay=decay, fused=True)


def _average(average: dict[str, Tensor], network: Network, ema: float) -> None:
    with torch.no_grad():
        for name, weight in network.named_parameters():
            average[name].lerp_(weight, 1 - ema)


def _rng(seed: int, epoch: int, step: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, step + 1])


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


def _too_large(name: str, settings: TrainingSettings, error: BaseException) -> TrainingError:
    return TrainingError(
        f"{name}: memory does not suffice for a step of {settings.batch_size} rows "
        f"({str(error).splitlines()[0]}). Lower batch_size, or limit batch_tokens, or lower max_length or dim."
    )


def facts_of(epoch: Epoch) -> dict[str, Any]:
    """Return an epoch as JSON holds it."""
    return asdict(epoch)
