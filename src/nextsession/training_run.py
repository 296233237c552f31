"""A training run: epochs with what surrounds them, that is validation, early stopping, checkpoints and logs."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from nextsession.checkpoints import state_of
from nextsession.config import Runtime
from nextsession.cost import give_back_memory
from nextsession.distributed import Processes
from nextsession.errors import ArtifactError
from nextsession.metrics import check_names
from nextsession.nn.batches import TrainingRows
from nextsession.progress import Progress
from nextsession.recommender import Exclude
from nextsession.training import Epoch, Objective, TrainingSettings, TrainingState, epochs
from nextsession.training_log import CURVE, TrainingLog
from nextsession.training_state import load_state, packed, save_state, unpack


class RunSettings(TrainingSettings):
    """How a network is trained, and when that ends."""

    patience: int = Field(default=10, ge=0)
    """Validations without a better score before training ends; 0: train all epochs. The best weights answer anyway."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs between two validations; there are none without validation questions."""
    validation_metric: str = "ndcg@10"
    """What a better score is: a metric and the length of the lists."""
    validation_questions: int = Field(default=10_000, ge=1)
    """Questions of a validation at most, the same ones each time."""
    validation_exclude: Exclude = "nothing"
    """What the lists of a validation leave out, as in an evaluation."""

    @field_validator("validation_metric")
    @classmethod
    def _metric_has_a_length(cls, metric: str) -> str:
        name, at, k = metric.partition("@")
        if not (name and at and k.isdigit() and int(k) > 0):
            raise ValueError(f"must be a metric and a length such as ndcg@10, got {metric!r}")
        check_names((name,))
        return metric


@dataclass
class Clock:
    """CPU-seconds of a training, validations and all, in this process and those that it goes on from."""

    earlier: float = 0.0
    began: float = field(default_factory=time.process_time)

    @property
    def seconds(self) -> float:
        """Return how many so far."""
        return self.earlier + time.process_time() - self.began


@dataclass(frozen=True)
class TrainingRun:
    """One training of one model, in one process or several."""

    name: str
    """Of the model."""
    settings: RunSettings
    runtime: Runtime
    device: torch.device
    processes: Processes
    facts: Mapping[str, Any]
    """What the result depends on beside the settings and the seed: the data, the questions."""
    validate: Callable[[], float] | None
    """Returns the score of the network as it is; None: nobody asks."""
    progress: Progress
    clock: Clock = field(default_factory=Clock)

    def train(self, state: TrainingState, rows: TrainingRows, loss: Objective) -> NDArray[np.float64]:
        """Train, going on from the checkpoint if there is one, and leave the network with the weights that answer.

        Returns:
            The curve, `(epochs, len(CURVE))`.

        Raises:
            ArtifactError: The checkpoint is damaged or of another training, or cannot be written.
            ConfigError: TensorBoard is asked for and not installed.
            TrainingError: See `nextsession.training.epochs`.
        """
        state.notes = {"curve": [], "best": None, "since": 0, "cpu_seconds": 0.0}
        self._go_on(state)
        self.clock.earlier = state.notes.get("cpu_seconds", 0.0)
        with TrainingLog.of(self.runtime, self.name, self.settings.validation_metric, self.processes.first) as log:
            if len(rows) and not self._finished(state):
                for epoch in self._epochs(state, rows, loss):
                    self._note(state, epoch)
                    self._keep(state)
                    log.write(state.notes["curve"])
                    give_back_memory()
                    if self._finished(state):
                        break
            log.write(state.notes["curve"])
        state.network.load_state_dict(state.best or state.weights())
        curve = [[math.nan if x is None else x for x in row] for row in state.notes["curve"]]
        return np.array(curve, np.float64).reshape(-1, len(CURVE))

    def _epochs(self, state: TrainingState, rows: TrainingRows, loss: Objective) -> Iterator[Epoch]:
        def told(task: str, done: int, total: int | None, note: str = "") -> None:
            scores = [row[CURVE.index("validation")] for row in state.notes["curve"]]
            score = next((x for x in reversed(scores) if x is not None), None)
            self.progress(task, done, total, note + self._score_text(score))

        yield from epochs(
            state,
            rows,
            loss,
            self.settings,
            seed=self.runtime.seed,
            device=self.device,
            name=self.name,
            checkpoint=self._keep if self.place is not None and self.processes.first else None,
            every=self.runtime.checkpoint_every / 1000,
            progress=told,
            processes=self.processes,
        )

    def _score_text(self, score: float | None) -> str:
        return "" if score is None else f" · {self.settings.validation_metric} {score:.4f}"

    # -- early stopping ---------------------------------------------------------------------------

    def _finished(self, state: TrainingState) -> bool:
        return bool(self.settings.patience and state.notes["since"] >= self.settings.patience)

    def _note(self, state: TrainingState, epoch: Epoch) -> None:
        """Add the epoch to the curve, and keep its weights if they answer best so far."""
        settings, score = self.settings, math.nan
        if self.validate and (epoch.number % settings.validate_every == 0 or epoch.number == settings.epochs):
            with _answering(state):
                score = self.processes.told(self.validate() if self.processes.first else math.nan)
        if not math.isnan(score):
            best = state.notes["best"]
            if best is None or score > best:
                state.best = state.weights()
                state.notes |= {"best": score, "since": 0}
            else:
                state.notes["since"] += 1
        values = {**vars(epoch), "epoch": epoch.number, "validation": None if math.isnan(score) else score}
        state.notes["curve"].append([values[name] for name in CURVE])

    # -- checkpoints ------------------------------------------------------------------------------

    @property
    def place(self) -> Path | None:
        """Where the checkpoint of this training is; None: none is kept."""
        return None if self.runtime.checkpoints is None else state_of(Path(self.runtime.checkpoints), self.name)

    def _keep(self, state: TrainingState) -> None:
        state.notes["cpu_seconds"] = self.clock.seconds
        if self.place is not None and self.processes.first:
            save_state(state, self.place, self._facts())

    def _go_on(self, state: TrainingState) -> None:
        """Take back the checkpoint, in the first process, and tell it to the others."""
        if self.place is None:
            return
        found = self.processes.first and load_state(state, self.place, self._facts())
        beyond = state.epoch - self.settings.epochs
        if found and (beyond > 0 or (beyond == 0 and state.step and state.best is None)):
            raise ArtifactError(
                f"{self.place} is a checkpoint after {state.epoch} epochs{' and some steps' if state.step else ''}, "
                f"and there are to be {self.settings.epochs}. "
                "Choose another folder for checkpoints, or remove this one to start anew."
            )
        if self.processes.size > 1 and self.processes.told(float(found)):
            unpack(state, self.processes.told_bytes(packed(state) if self.processes.first else b""))

    def _facts(self) -> dict[str, Any]:
        settings = self.settings.model_dump(mode="json")
        if self._can_grow():
            del settings["epochs"]
        return {
            "version": version("nextsession"),
            "model": self.name,
            "seed": self.runtime.seed,
            **self.facts,
            "settings": json.loads(json.dumps(settings)),
        }

    def _can_grow(self) -> bool:
        """Are the first epochs the same however many follow?  Then training can go on for longer than was planned."""
        settings = self.settings
        same_rates = settings.schedule in ("constant", "step") and not settings.warmup
        return same_rates and settings.epochs % settings.validate_every == 0  # the last epoch is validated anyway


@contextmanager
def _answering(state: TrainingState) -> Iterator[None]:
    """Put the weights that answer into the network for a while."""
    if state.average is None:
        yield
        return
    trained = {name: weight.detach().clone() for name, weight in state.network.state_dict().items()}
    state.network.load_state_dict(state.weights())
    try:
        yield
    finally:
        state.network.load_state_dict(trained)
