"""Optimisers: how gradients become steps, of whole tables or of the rows a batch has touched."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nextsession.config import Settings
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.ops.row_steps import adagrad_rows, adam_rows, rowwise_adagrad_rows


class OptimiserSettings(Settings):
    """How gradients become steps."""

    optimiser: Literal["adam", "adamw", "adagrad", "rowwise-adagrad", "sgd"] = "adam"
    """What turns gradients into steps; `rowwise-adagrad` keeps one number for each row of an item table."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Size of the steps."""
    betas: tuple[float, float] = (0.9, 0.999)
    """How slowly the two moments of Adam forget."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty of all weights; with `adamw` decay beside the gradient, of all but biases and layer norms (BERT)."""
    sparse: bool = False
    """Step only in the rows of item tables that a batch has touched; for many items, and losses that sample.

    The moments of Adam then stand still in rows that are not touched (lazy Adam)."""

    @model_validator(mode="after")
    def _decay_of_all_rows(self) -> "OptimiserSettings":
        if self.sparse and self.weight_decay:
            raise ValueError(
                f"weight_decay must be 0 with sparse = true: it moves every row; got {self.weight_decay:g}"
            )
        return self

    @model_validator(mode="after")
    def _betas_below_one(self) -> "OptimiserSettings":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be from 0 to less than 1, got {list(self.betas)}")
        return self


class Optimiser:
    """Steps of all weights: of item tables perhaps by rows, of the rest by PyTorch's fused loops.

    Args:
        network: Whose weights.
        settings: How.
    """

    def __init__(self, network: nn.Module, settings: OptimiserSettings) -> None:
        """Set out with empty moments."""
        for module in network.modules():
            if isinstance(module, ItemEmbedding):
                module.sparse = settings.sparse
        self.parts = list(_parts(network, settings))

    def step(self, rate: float) -> None:
        """Take a step of this learning rate, and forget the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return what steps have changed: `part.weight.slot`."""
        return {
            f"{place}.{number}.{slot}": torch.as_tensor(value)
            for place, part in enumerate(self.parts)
            for number, slots in part.state_dict()["state"].items()
            for slot, value in slots.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        found: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.parts]
        for name, value in tensors.items():
            place, number, slot = name.split(".")
            found[int(place)].setdefault(int(number), {})[slot] = value
        for part, slots in zip(self.parts, found, strict=True):
            part.load_state_dict({"state": slots, "param_groups": part.state_dict()["param_groups"]})


def gradients(network: nn.Module) -> list[Tensor]:
    """Return the numbers of all gradients, to be changed in place; duplicates of a row are summed first."""
    found = []
    for weight in network.parameters():
        if weight.grad is not None and weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()
            found.append(weight.grad._values())
        elif weight.grad is not None:
            found.append(weight.grad)
    return found


def clip(network: nn.Module, longest: float) -> None:
    """Shorten all gradients together to this length, if they are longer."""
    numbers = gradients(network)
    if numbers:
        norm = torch.nn.utils.get_total_norm(numbers)
        torch._foreach_mul_(numbers, (longest / (norm + 1e-6)).clamp(max=1.0))


def _parts(network: nn.Module, settings: OptimiserSettings) -> Iterator[torch.optim.Optimizer]:
    tables = {id(m.weight): m.weight for m in network.modules() if isinstance(m, ItemEmbedding)}
    weights = [p for p in network.parameters() if p.requires_grad]
    by_rows = settings.optimiser == "rowwise-adagrad" or (settings.sparse and settings.optimiser != "sgd")
    if by_rows and tables:
        yield _TableOptimiser(list(tables.values()), settings)
        weights = [p for p in weights if id(p) not in tables]
    if weights:
        yield _of_whole_weights(weights, settings)


def _of_whole_weights(weights: list[nn.Parameter], settings: OptimiserSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=rate, weight_decay=decay)
    if settings.optimiser in ("adagrad", "rowwise-adagrad"):
        fused = True if weights[0].device.type == "cpu" else None
        return torch.optim.Adagrad(weights, lr=rate, weight_decay=decay, fused=fused)
    if settings.optimiser == "adam":
        return torch.optim.Adam(weights, lr=rate, betas=settings.betas, weight_decay=decay, fused=True)
    groups = [
        {"params": [p for p in weights if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in weights if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=settings.betas, fused=True)


class _TableOptimiser(torch.optim.Optimizer):
    """Steps in the rows that have a gradient; in all of them where the gradient is whole."""

    def __init__(self, tables: list[nn.Parameter], settings: OptimiserSettings) -> None:
        kind = "adam" if settings.optimiser in ("adam", "adamw") else settings.optimiser
        facts = {"lr": settings.learning_rate, "betas": settings.betas, "decay": settings.weight_decay, "kind": kind}
        super().__init__(tables, facts)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table, group)

    def _move(self, table: nn.Parameter, group: dict[str, Any]) -> None:
        rows, gradient = _by_rows(table, group["decay"])
        state, rate = self.state[table], group["lr"]
        if group["kind"] == "adam":
            if not state:
                state |= {"step": torch.zeros(()), "first": torch.zeros_like(table), "second": torch.zeros_like(table)}
            state["step"] += 1
            adam_rows(
                table, state["first"], state["second"], rows, gradient,
                step=int(state["step"]), rate=rate, betas=group["betas"], eps=1e-8,
            )  # fmt: skip
        elif group["kind"] == "adagrad":
            if not state:
                state["squares"] = torch.zeros_like(table)
            adagrad_rows(table, state["squares"], rows, gradient, rate=rate, eps=1e-10)
        else:
            if not state:
                state["squares"] = torch.zeros(len(table), device=table.device)
            rowwise_adagrad_rows(table, state["squares"], rows, gradient, rate=rate, eps=1e-8)


def _by_rows(table: nn.Parameter, decay: float) -> tuple[Tensor, Tensor]:
    """Return the distinct rows that a gradient is of, and it."""
    gradient = table.grad
    assert gradient is not None
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        return gradient._indices()[0].contiguous(), gradient._values().contiguous()
    rows = torch.arange(len(table), device=table.device)
    return rows, (gradient.add(table, alpha=decay) if decay else gradient).contiguous()
