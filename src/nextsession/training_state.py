"""What training changes, all of it; and how that is kept, so that training that was killed goes on exactly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from nextsession.cost import OverBudgetError
from nextsession.errors import ArtifactError
from nextsession.files import manifest_of, mend, sha256, verify, whole_directory
from nextsession.nn.networks import Network
from nextsession.nn.optimisers import Optimiser

FORMAT = 1

_TENSORS = "state.safetensors"
_ANEW = "Remove it to start anew."


@dataclass
class TrainingState:
    """Everything that training changes: kept in checkpoints, and nowhere else.

    Random numbers are not among it: every step draws from a seed made of its own number.
    """

    network: Network
    optimiser: Optimiser
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
    first_loss: float | None = None
    """Of the first step of all; far above it training has gone astray."""
    best: dict[str, Tensor] | None = None
    """Weights of the best epoch so far, if somebody validates."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the caller keeps, as JSON: the curve, the best score."""

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that answer: averaged ones if there are any."""
        found = dict(self.network.state_dict())
        if self.average is not None:
            found.update(self.average)
        return {name: weight.detach().clone() for name, weight in found.items()}


_PLAIN = ("epoch", "step", "total", "positives", "cpu_seconds", "seconds", "first_loss", "notes")


def save_state(state: TrainingState, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint: a directory of plain arrays and JSON, whole or not at all.

    Args:
        state: What training has changed so far.
        path: A directory; a checkpoint there is replaced at the last moment.
        facts: What the training is of, as JSON; `load_state` refuses a checkpoint whose facts differ.

    Raises:
        ArtifactError: It cannot be written, perhaps for want of room; an older one is still there.
    """
    try:
        with whole_directory(path) as scratch:
            save_file(_tensors(state), scratch / _TENSORS)
            content = {
                "format": FORMAT,
                "facts": dict(facts),
                "best": state.best is not None,
                "average": state.average is not None,
                **{name: getattr(state, name) for name in _PLAIN},
                "files": {_TENSORS: sha256(scratch / _TENSORS)},
            }
            (scratch / "manifest.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
    except (OSError, SafetensorError) as error:
        kept = "The last checkpoint is whole: make room, and the same command goes on from it." if path.exists() else ""
        raise ArtifactError(f"The checkpoint {path} cannot be written: {error}. {kept}".rstrip()) from error


def load_state(state: TrainingState, path: Path, facts: Mapping[str, Any]) -> bool:
    """Take back what `save_state` wrote.

    Args:
        state: As `start` gave it for the same network and settings; changed in place.
        path: Where the checkpoint is.
        facts: What the training is of.

    Returns:
        Was there a checkpoint?

    Raises:
        ArtifactError: It is damaged, of a newer version, or of another training: the message says in what.
    """
    if not path.parent.exists():
        return False
    mend(path)
    if not path.exists():
        return False
    try:
        content = manifest_of(path, "checkpoint", FORMAT)
        verify(path, content.get("files", {_TENSORS: ""}))
    except ArtifactError as error:
        raise ArtifactError(f"{error} {_ANEW}") from error
    _check_facts(path, content.get("facts", {}), facts)
    try:
        _take_back(state, content, load_file(path / _TENSORS))
    except OverBudgetError:  # a RuntimeError too, and no fault of the checkpoint
        raise
    except (KeyError, RuntimeError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. {_ANEW}") from error
    return True


def _check_facts(path: Path, found: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        now, then = json.loads(json.dumps(value)), found.get(name)
        if now == then:
            continue
        differ = f"its {name} is {then!r}, now it is {now!r}"
        if isinstance(now, dict) and isinstance(then, dict):
            names = [key for key in {**then, **now} if then.get(key) != now.get(key)]
            differ = ", ".join(f"its {key} is {then.get(key)!r}, now it is {now.get(key)!r}" for key in names[:3])
        raise ArtifactError(
            f"{path} is a checkpoint of another training: {differ}. "
            "Choose another folder for checkpoints, or remove this one to start anew."
        )


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    parts = {
        "network": state.network.state_dict(),
        "average": state.average or {},
        "best": state.best or {},
        "optimiser": state.optimiser.state(),
    }
    return {  # copies, since tied weights may share memory, which the format does not allow
        f"{part}.{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for part, tensors in parts.items()
        for name, value in tensors.items()
    }


def _take_back(state: TrainingState, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    def part(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}

    device = next(state.network.parameters()).device
    _take_weights(state.network, part("network"))
    state.optimiser.load(part("optimiser"))
    for name in ("average", "best"):
        if content[name]:
            setattr(state, name, {k: v.to(device) for k, v in part(name).items()})
    for name in _PLAIN:
        setattr(state, name, content[name])


def _take_weights(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a network; PyTorch's own function would turn an interrupt inside into an error of the file."""
    own = network.state_dict()
    if {name: x.shape for name, x in own.items()} != {name: x.shape for name, x in weights.items()}:
        raise ValueError("its weights have other names or shapes than the network's")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])


def packed(state: TrainingState) -> bytes:
    """Return the state as bytes, for another process that trains the same."""
    content = {name: getattr(state, name) for name in _PLAIN}
    content |= {"best": state.best is not None, "average": state.average is not None}
    return bytes(save(_tensors(state), {"content": json.dumps(content)}))


def unpack(state: TrainingState, content: bytes) -> None:
    """Take back what `packed` gave."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    _take_back(state, json.loads(header["__metadata__"]["content"]), load(content))
