"""The GRU of the tables against a loop over one history at a time, and what it promises."""

import pytest
import torch

from nextsession.answering import Facts
from nextsession.models.gru import GRU
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.losses import FullSoftmax
from nextsession.nn.negatives import ItemStatistics

V, D = 12, 6
ROWS = [[1, 2, 3, 4, 5], [6], [7, 8], [0, 0, 0, 1], [11, 3]]


def batch(rows):
    events = Jagged.of(rows)
    return Batch(events, Jagged(events.offsets[:-1], torch.arange(len(rows) + 1), 1))


def network(**settings):
    torch.manual_seed(2)
    net = GRU(dim=D, **settings)._network(Facts(V)).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return net


def states_of(w, codes, layers):
    """The states of the last layer after each of `codes`, step by step."""
    values = [w["inputs.items.weight"][code] for code in codes]
    for layer in range(layers):
        unit = {k: w[f"encoder.unit.{k}_l{layer}"] for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        state, states = torch.zeros(D, dtype=torch.float64), []
        for x in values:
            r, z, n = (unit["weight_ih"] @ x + unit["bias_ih"]).chunk(3)
            hr, hz, hn = (unit["weight_hh"] @ state + unit["bias_hh"]).chunk(3)
            update = torch.sigmoid(z + hz)
            state = (1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * state
            states.append(state)
        values = states
    return values


def scored(w, state):
    """The scores of all items."""
    if "head.bias" in w:
        return w["head.output.weight"] @ state + w["head.bias"]
    return w["inputs.items.weight"] @ state


@pytest.mark.parametrize(("layers", "tied"), [(1, True), (2, True), (1, False)])
def test_it_is_a_loop_over_histories(layers, tied):
    net = network(layers=layers, tied=tied)
    value = FullSoftmax()(net.examples(batch(ROWS)), net.head, ItemStatistics(torch.ones(V)))
    value.backward()
    exact = {k: v.detach().double().requires_grad_() for k, v in net.named_parameters()}
    losses = []
    for row in ROWS:
        for t, state in enumerate(states_of(exact, row[:-1], layers)):
            losses.append(-torch.log_softmax(scored(exact, state), 0)[row[t + 1]])
    expected = torch.stack(losses).mean()
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    for name, weight in net.named_parameters():
        torch.testing.assert_close(weight.grad.double(), exact[name].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_answers_are_those_of_training():
    net = network(layers=2)
    exact = {k: v.detach().double() for k, v in net.named_parameters()}
    expected = torch.stack([states_of(exact, row, 2)[-1] for row in ROWS])
    torch.testing.assert_close(net(batch(ROWS)).double(), expected, rtol=1e-5, atol=1e-6)


def test_company_changes_nothing():
    net = network()
    together = net(batch(ROWS))
    for row, query in zip(ROWS, together, strict=True):
        torch.testing.assert_close(net(batch([row]))[0], query)


def test_the_head_has_a_bias_of_its_own_or_none():
    assert network().head.bias is None
    assert network().head.output is None
    assert network(tied=False).head.bias.shape == (V,)
