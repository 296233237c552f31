"""BERT4Rec against a loop over rows and events, written straight from the paper; values and gradients."""

import math

import pytest
import torch

from nextsession.answering import Facts
from nextsession.models.bert4rec import BERT4Rec
from nextsession.nn.cloze import Cloze, hidden_events
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.losses import FullSoftmax
from nextsession.nn.negatives import ItemStatistics

V, L = 11, 6
ROWS = [[1, 2, 3, 4, 5, 6], [10], [7, 8], [0, 0, 9, 1], [3, 1, 4]]


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x, weight, bias):
    mean = x.mean()
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean() + 1e-12) * weight + bias


def states(w, codes, layers, heads):
    """The state of every event of one row, as the paper has it: one event, one head at a time."""
    x = [
        layer_norm(w["items.weight"][c] + w["positions"][t], w["norm.weight"], w["norm.bias"])
        for t, c in enumerate(codes)
    ]
    for layer in range(layers):
        b = {k.removeprefix(f"encoder.blocks.{layer}."): v for k, v in w.items()}
        dim = len(x[0])
        size = dim // heads
        key_map, value_map = b["of_key_value.weight"][:dim], b["of_key_value.weight"][dim:]
        key_bias, value_bias = b["of_key_value.bias"][:dim], b["of_key_value.bias"][dim:]
        q = [b["of_query.weight"] @ h + b["of_query.bias"] for h in x]
        k = [key_map @ h + key_bias for h in x]
        v = [value_map @ h + value_bias for h in x]
        new = []
        for t in range(len(x)):
            parts = []
            for head in range(heads):
                own = slice(head * size, (head + 1) * size)
                scores = torch.stack([q[t][own] @ k[s][own] / math.sqrt(size) for s in range(len(x))])
                weights = scores.exp() / scores.exp().sum()
                parts.append(sum(weights[s] * v[s][own] for s in range(len(x))))
            attended = b["project.weight"] @ torch.cat(parts) + b["project.bias"]
            y = layer_norm(x[t] + attended, b["attention_norm.weight"], b["attention_norm.bias"])
            fed = b["narrow.weight"] @ gelu(b["widen.weight"] @ y + b["widen.bias"]) + b["narrow.bias"]
            new.append(layer_norm(y + fed, b["ffn_norm.weight"], b["ffn_norm.bias"]))
        x = new
    return x


def scores(w, state):
    g = layer_norm(
        gelu(w["head.dense.weight"] @ state + w["head.dense.bias"]), w["head.norm.weight"], w["head.norm.bias"]
    )
    return w["items.weight"][:V] @ g + w["head.bias"]


def made(layers, heads, dtype) -> tuple[Cloze, dict[str, torch.Tensor]]:
    torch.manual_seed(5)
    model = BERT4Rec(dim=8, heads=heads, layers=layers, max_length=L, masked=0.4, dropout=0.0)
    net = model._network(Facts(V))
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)  # no bias is 0, no norm is plain
    w = {k: v.detach().double().clone().requires_grad_() for k, v in net.named_parameters()}
    return net.to(dtype), w


def batch():
    events = Jagged.of(ROWS)
    return Batch(events, Jagged(events.offsets[:-1], torch.arange(len(ROWS) + 1), 1))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 2)])
def test_questions(layers, heads, dtype, close):
    net, w = made(layers, heads, dtype)
    table, bias = net.head.table()
    found = net(batch()) @ table.T + bias
    for row, got in zip(ROWS, found, strict=True):
        codes = [*row, V][-L:]
        torch.testing.assert_close(got.double(), scores(w, states(w, codes, layers, heads)[-1]), rtol=close, atol=close)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-4), (torch.float64, 1e-6)])
def test_loss_of_hidden_events_and_its_gradients(dtype, close):
    net, w = made(2, 2, dtype)
    torch.manual_seed(11)
    places = set(hidden_events(batch().events, 0.4, net.last_only).tolist())
    hidden = [i in places for i in range(len(batch().events.values))]
    losses, place = [], 0
    for row in ROWS:
        flags = hidden[place : place + len(row)]
        place += len(row)
        found = states(w, [V if h else c for c, h in zip(row, flags, strict=True)], 2, 2)
        for code, h, state in zip(row, flags, found, strict=True):
            if h:
                s = scores(w, state)
                losses.append(torch.log(s.exp().sum()) - s[code])
    expected = sum(losses) / len(losses)
    expected.backward()

    torch.manual_seed(11)
    loss = FullSoftmax()(net.examples(batch()), net.head, ItemStatistics(torch.ones(V)))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=close)
    for name, weight in net.named_parameters():
        torch.testing.assert_close(weight.grad.double(), w[name].grad, rtol=close, atol=close, msg=name)
