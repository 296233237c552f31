"""Optimisers against plain loops over whole tables."""

import numpy as np
import pytest
import torch
from torch import nn

from nextsession.errors import ConfigError
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.ops import row_steps
from nextsession.nn.optimisers import Optimiser, OptimiserSettings, clip, gradients

V, D = 9, 5
STEPS = [[0, 3, 3, 7], [3, 3, 3], [1, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8], [5]]
RATES = [0.1, 0.2, 0.05, 0.1, 0.3]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.items = ItemEmbedding(V, D, std=1.0)
        self.linear = nn.Linear(D, D)
        self.norm = nn.LayerNorm(D)

    def forward(self, codes):
        return self.norm(self.linear(self.items(codes))).sin().sum() + self.items(codes).pow(2).sum() / 9


def trained(**settings):
    network = Small()
    optimiser = Optimiser(network, OptimiserSettings(**settings))
    for codes, rate in zip(STEPS, RATES, strict=True):
        network(torch.tensor(codes)).backward()
        optimiser.step(rate)
    return network


def by_a_loop(update):
    """Walk through the same steps with whole float64 gradients."""
    network = Small().double()
    states = {name: {} for name, _ in network.named_parameters()}
    for step, (codes, rate) in enumerate(zip(STEPS, RATES, strict=True), 1):
        network.zero_grad()
        network(torch.tensor(codes)).backward()
        for name, weight in network.named_parameters():
            weight.data = torch.from_numpy(
                update(name, weight.detach().numpy().copy(), weight.grad.numpy(), states[name], step, rate)
            )
    return network


def adam(weight, gradient, state, step, rate, betas=(0.9, 0.999), rows=slice(None)):
    m, v = state.setdefault("m", np.zeros_like(weight)), state.setdefault("v", np.zeros_like(weight))
    m[rows] = betas[0] * m[rows] + (1 - betas[0]) * gradient[rows]
    v[rows] = betas[1] * v[rows] + (1 - betas[1]) * gradient[rows] ** 2
    mean, square = m[rows] / (1 - betas[0] ** step), v[rows] / (1 - betas[1] ** step)
    weight[rows] -= rate * mean / (np.sqrt(square) + 1e-8)
    return weight


def adagrad(weight, gradient, state, rate):
    s = state.setdefault("s", np.zeros_like(weight))
    s += gradient**2
    return weight - rate * gradient / (np.sqrt(s) + 1e-10)


def rowwise(weight, gradient, state, rate):
    s = state.setdefault("s", np.zeros(len(weight)))
    s += (gradient**2).mean(1)
    return weight - rate * gradient / (np.sqrt(s) + 1e-8)[:, None]


def same(network, other, tolerance=1e-5):
    for (name, one), two in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.double(), two.double(), rtol=tolerance, atol=tolerance, msg=name)


def touched(step):
    return np.unique(STEPS[step - 1])


def test_adam_is_that_of_the_paper():
    same(trained(), by_a_loop(lambda name, w, g, s, t, r: adam(w, g, s, t, r)), 1e-4)


def test_adam_with_an_l2_penalty_has_it_in_the_gradient():
    same(trained(weight_decay=0.1), by_a_loop(lambda name, w, g, s, t, r: adam(w, g + 0.1 * w, s, t, r)), 1e-4)


def test_adamw_decays_all_but_biases_and_layer_norms():
    def update(name, w, g, s, t, r):
        return adam(w * (1 - 0.1 * r) if w.ndim > 1 else w, g, s, t, r)

    same(trained(optimiser="adamw", weight_decay=0.1), by_a_loop(update), 1e-4)


def test_fused_adam_is_the_plain_one():
    network = Small()
    plain = torch.optim.Adam(network.parameters(), foreach=False, betas=(0.9, 0.98))
    for codes, rate in zip(STEPS, RATES, strict=True):
        network(torch.tensor(codes)).backward()
        plain.param_groups[0]["lr"] = rate
        plain.step()
        plain.zero_grad()
    same(network, trained(betas=(0.9, 0.98)), 2e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_adagrad_is_the_same_of_some_rows_as_of_all(sparse):
    found = trained(optimiser="adagrad", sparse=sparse)
    same(found, by_a_loop(lambda name, w, g, s, t, r: adagrad(w, g, s, r)))


@pytest.mark.parametrize("sparse", [False, True])
def test_rowwise_adagrad_keeps_one_number_a_row_of_tables(sparse):
    def update(name, w, g, s, t, r):
        return rowwise(w, g, s, r) if name == "items.weight" else adagrad(w, g, s, r)

    network = Small()
    optimiser = Optimiser(network, OptimiserSettings(optimiser="rowwise-adagrad", sparse=sparse))
    network(torch.tensor([1])).backward()
    optimiser.step(0.1)
    assert (V,) in [tuple(value.shape) for value in optimiser.state().values()]
    same(trained(optimiser="rowwise-adagrad", sparse=sparse), by_a_loop(update))


def test_lazy_adam_moves_what_a_batch_touches_and_nothing_else():
    def update(name, w, g, s, t, r):
        return adam(w, g, s, t, r, rows=touched(t) if name == "items.weight" else slice(None))

    same(trained(sparse=True), by_a_loop(update))


@pytest.mark.parametrize("sparse", [False, True])
def test_plain_descent(sparse):
    same(trained(optimiser="sgd", sparse=sparse), by_a_loop(lambda name, w, g, s, t, r: w - r * g), 1e-4)


@pytest.mark.parametrize("name", ["adam_rows", "adagrad_rows", "rowwise_adagrad_rows"])
def test_compiled_steps_are_those_of_torch(name, monkeypatch):
    def run():
        rng = np.random.default_rng(3)
        table = torch.tensor(rng.normal(size=(V, D)), dtype=torch.float32)
        shapes = {"adam_rows": [(V, D), (V, D)], "adagrad_rows": [(V, D)], "rowwise_adagrad_rows": [(V,)]}
        state = [torch.zeros(shape) for shape in shapes[name]]
        for step in (1, 2, 3):
            rows = torch.tensor(rng.choice(V, 4, replace=False))
            g = torch.tensor(rng.normal(size=(4, D)), dtype=torch.float32)
            more = {"step": step, "betas": (0.9, 0.99)} if name == "adam_rows" else {}
            getattr(row_steps, name)(table, *state, rows, g, rate=0.1, eps=1e-8, **more)
        return [table, *state]

    fast = run()
    monkeypatch.setattr(row_steps, "_compilable", lambda *tensors: False)
    for one, other in zip(fast, run(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "adagrad", "rowwise-adagrad", "sgd"])
@pytest.mark.parametrize("sparse", [False, True])
def test_state_can_be_kept_and_taken_back_bit_for_bit(optimiser, sparse):
    settings = OptimiserSettings(optimiser=optimiser, sparse=sparse)

    def walk(network, parts, steps):
        for codes in steps:
            network(torch.tensor(codes)).backward()
            parts.step(0.1)

    network = Small()
    parts = Optimiser(network, settings)
    walk(network, parts, STEPS[:3])
    kept = {name: value.clone() for name, value in parts.state().items()}
    other = Small()
    other.load_state_dict({name: value.clone() for name, value in network.state_dict().items()})
    again = Optimiser(other, settings)
    again.load(kept)
    walk(network, parts, STEPS[3:])
    walk(other, again, STEPS[3:])
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_clipped_together_and_duplicates_first_summed(sparse):
    network, plain = Small(), Small()
    Optimiser(network, OptimiserSettings(sparse=sparse))
    for some in (network, plain):
        some(torch.tensor([3, 3, 7])).backward()
    assert network.items.weight.grad.is_sparse is sparse
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    assert norm > 0.5
    clip(network, 0.5)
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad.to_dense(), other.grad)
    length = torch.cat([g.flatten() for g in gradients(network)]).norm()
    torch.testing.assert_close(length, torch.tensor(0.5), rtol=1e-4, atol=0)
    clip(network, 1e6)
    torch.testing.assert_close(torch.cat([g.flatten() for g in gradients(network)]).norm(), length)


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match=r"weight_decay must be 0 with sparse = true"):
        OptimiserSettings.read({"sparse": True, "weight_decay": 0.1}, "sasrec")
    with pytest.raises(ConfigError, match=r"betas must be from 0 to less than 1"):
        OptimiserSettings.read({"betas": [0.9, 1.0]}, "sasrec")
