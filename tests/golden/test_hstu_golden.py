"""HSTU: values worked out by hand, and what the published sizes are."""

import pytest
import torch
from torch import Tensor

from nextsession.answering import Facts
from nextsession.models.hstu import HSTU, HSTUSettings
from nextsession.nn.networks import NextItem
from nextsession.nn.ops.silu_attention import silu_attention, time_buckets

Q = torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 1.0]])
K = torch.tensor([[0.2, 0.1], [1.0, -0.5], [0.3, 0.7]])
V = torch.tensor([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]])


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0, 0), (1, 0), (2, 2), (60, 13), (3600, 27), (86_400, 37), (604_800, 44), (31_536_000, 57), (-3600, 27)],
)
def test_buckets_of_seconds(seconds: int, bucket: int) -> None:
    times, asked = torch.tensor([5_000_000_000_000]), torch.tensor([5_000_000_000_000 + 1000 * seconds])
    assert time_buckets(times, asked, torch.tensor([0, 1])).tolist() == [bucket]


def test_core_of_attention() -> None:
    attended = silu_attention(Q, K, V, torch.tensor([0, 3]), 3, heads=1, normaliser=4.0)
    expected = torch.tensor([[0.027492, 0.054983], [0.0, 0.182765], [-0.177589, 0.589903]])
    torch.testing.assert_close(attended, expected, rtol=0, atol=1e-5)


def test_weights_of_attention() -> None:
    weights = silu_attention(Q, K, torch.eye(3), torch.tensor([0, 3]), 3, heads=1, normaliser=4.0)
    expected = torch.tensor([[0.027492, 0, 0], [0, 0.182765, 0], [0.077807, 0.306590, 0.255396]])
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)


def network(**settings: object) -> NextItem:
    model = HSTU(**settings)
    model.timed_ = True
    found = model._network(Facts(30))
    assert isinstance(found, NextItem)
    return found


@pytest.mark.parametrize(("preset", "layers", "heads"), [("hstu-ml1m", 2, 1), ("hstu-ml1m-large", 8, 2)])
def test_published_sizes(preset: str, layers: int, heads: int) -> None:
    width = 50 // heads
    torch.manual_seed(0)
    sizes = {name: tuple(weight.shape) for name, weight in network(preset=preset).named_parameters()}
    blocks = {
        f"encoder.blocks.{i}.{name}": shape
        for i in range(layers)
        for name, shape in {
            "of_input.weight": (4 * heads * width, 50),
            "project.weight": (50, heads * width),
            "project.bias": (50,),
            "by_distance": (2 * 200 - 1,),
            "by_time": (129,),
        }.items()
    }
    assert sizes == {"inputs.items.weight": (30, 50), "inputs.positions": (200, 50), **blocks}


def test_published_recipe() -> None:
    recipe = HSTUSettings(preset="hstu-ml1m")
    assert (recipe.optimiser, recipe.learning_rate, recipe.weight_decay) == ("adamw", 1e-3, 0)
    assert recipe.betas == (0.9, 0.98)
    assert (recipe.batch_size, recipe.epochs, recipe.dropout, recipe.max_length) == (128, 101, 0.2, 200)
    assert (recipe.schedule, recipe.warmup, recipe.temperature, recipe.normaliser) == ("constant", 0, 0.05, "constant")
    loss = recipe.loss.model_dump()
    assert (loss["kind"], loss["logq"]) == ("sampled_softmax", "none")
    drawn = {"kind": "uniform", "n": 128, "per": "query", "all_items": True, "mask": True}
    assert loss["negatives"] == drawn | {"distinct": False, "unseen": False}


def test_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    model = HSTU(dim=64, max_length=200)
    model.timed_ = True
    weights = dict(model._network(Facts(3000)).named_parameters())
    assert _spread(weights["inputs.items.weight"]) == pytest.approx((0.0176, 0.04), rel=0.02)  # cut at two deviations
    assert _spread(weights["inputs.positions"]) == pytest.approx((0.88 / 8, 2 / 8), rel=0.02)
    assert _spread(weights["encoder.blocks.0.of_input.weight"])[0] == pytest.approx(0.02, rel=0.02)
    assert _spread(weights["encoder.blocks.0.by_distance"])[0] == pytest.approx(0.02, rel=0.15)
    assert _spread(weights["encoder.blocks.1.by_time"])[0] == pytest.approx(0.02, rel=0.25)
    assert _spread(weights["encoder.blocks.1.project.weight"]) == pytest.approx((0.125, (3 / 64) ** 0.5), rel=0.02)


def _spread(weight: Tensor) -> tuple[float, float]:
    drawn = weight.detach()
    return float(drawn.std()), float(drawn.abs().max())
