"""NARM and STAMP against loops over one beginning of a session at a time, and what both promise."""

import inspect

import pytest
import torch

from nextsession.answering import Facts
from nextsession.models.narm import NARM
from nextsession.models.stamp import STAMP
from nextsession.nn.jagged import Batch, Jagged

V, D = 12, 6
ROWS = [[1, 2, 3, 4, 5], [6], [7, 8], [0, 0, 0, 1], [11, 3]]


def batch(rows):
    events = Jagged.of(rows)
    return Batch(events, Jagged(events.offsets[:-1], torch.arange(len(rows) + 1), 1))


def narm():
    torch.manual_seed(2)
    return NARM(dim=D, width=8, layers=1)._network(Facts(V)).double().eval()


def stamp():
    torch.manual_seed(2)
    net = STAMP(dim=D)._network(Facts(V)).double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    return net


def plain_narm(w, codes):
    """Li et al.: the state after each event; attention of the last to all; one linear map of both."""
    state = torch.zeros(8, dtype=torch.float64)
    states = []
    for code in codes:
        r, z, n = (w["encoder.unit.unit.weight_ih_l0"] @ w["inputs.items.weight"][code]).chunk(3)
        hr, hz, hn = (w["encoder.unit.unit.weight_hh_l0"] @ state).chunk(3)
        update = torch.sigmoid(z + hz)
        state = (1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * state
        states.append(state)
    local = 0
    for h in states:
        alpha = w["encoder.weight"] @ torch.sigmoid(
            w["encoder.of_each.weight"] @ h + w["encoder.of_last.weight"] @ states[-1]
        )
        local = local + alpha * h
    return w["encoder.joined.weight"] @ torch.cat([local, states[-1]])


def plain_stamp(w, codes):
    """Liu et al.: attention by the last event and the mean; the mean is added; both halves through a layer."""
    w = {k.removeprefix("encoder."): v for k, v in w.items()}
    x = [w["inputs.items.weight"][code] for code in codes]
    mean = sum(x) / len(x)
    about = mean
    for one in x:
        inner = w["of_each.weight"] @ one + w["of_last.weight"] @ x[-1] + w["of_mean.weight"] @ mean + w["of_mean.bias"]
        about = about + (w["weight"] @ torch.sigmoid(inner)) * one
    session = torch.tanh(w["whole.weight"] @ about + w["whole.bias"])
    return session * torch.tanh(w["current.weight"] @ x[-1] + w["current.bias"])


MODELS = pytest.mark.parametrize(("made", "plain"), [(narm, plain_narm), (stamp, plain_stamp)])


@MODELS
def test_questions_and_their_gradients(made, plain):
    net = made()
    w = dict(net.named_parameters())
    found, expected = net(batch(ROWS)), torch.stack([plain(w, row) for row in ROWS])
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(found)
    used = [x for name, x in w.items() if not name.startswith("head")]
    found_grads = torch.autograd.grad(found, used, direction)
    torch.testing.assert_close(found_grads, torch.autograd.grad(expected, used, direction))


@MODELS
def test_every_beginning_is_learnt_from(made, plain):
    net = made()
    w = dict(net.named_parameters())
    examples = net.examples(batch(ROWS))
    beginnings = [(row[:n], row[n]) for row in ROWS for n in range(1, len(row))]
    torch.testing.assert_close(examples.queries, torch.stack([plain(w, row) for row, _ in beginnings]))
    assert examples.positives.tolist() == [target for _, target in beginnings]


@MODELS
def test_company_does_not_matter_and_nothing_looks_ahead(made, plain):
    net = made().float()
    together = net(batch(ROWS))
    for i, row in enumerate(ROWS):
        torch.testing.assert_close(net(batch([row]))[0], together[i], rtol=1e-5, atol=1e-6)
    events = batch(ROWS).events
    states = net.encoder(events.with_values(net.inputs(batch(ROWS))))
    changed = batch([[*row[:-1], 9] for row in ROWS])
    others = net.encoder(changed.events.with_values(net.inputs(changed)))
    before = events.from_end > 0
    torch.testing.assert_close(states[before], others[before], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(states[~before], others[~before])


@MODELS
def test_empty_rows_disturb_nobody(made, plain):
    net = made()
    some = net(batch([[], [1, 2], [], [3]]))
    torch.testing.assert_close(some[[1, 3]], net(batch([[1, 2], [3]])))
    assert net(batch([[], []])).shape == (2, D)


@pytest.mark.parametrize("model", [NARM, STAMP])
def test_a_new_model_is_one_short_file(model):
    assert len(inspect.getsource(inspect.getmodule(model)).splitlines()) < 100
