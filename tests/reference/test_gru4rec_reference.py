"""The compiled loop of GRU4Rec against the algorithm in plain torch: autograd, one obvious step at a time, float64.

The twin shares only the random draws: which extra items, and what is dropped.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional

from nextsession import SessionLog
from nextsession.models.gru4rec import GRU4Rec
from nextsession.nn.gru4rec_cell import walk, weights_of
from nextsession.nn.gru4rec_epoch import epoch
from nextsession.nn.gru4rec_math import draw, drop, hash_64
from nextsession.nn.gru4rec_products import padded
from nextsession.nn.session_parallel import SessionParallel

TINY = 1e-24


def steps_plainly(lengths: list[int], batch_size: int):
    """Sessions one after another; gives `(session, place)` of each row, and whether the session begins."""
    waiting = [s for s, n in enumerate(lengths) if n > 1]
    rows = [[waiting.pop(0), 0] for _ in range(min(batch_size, len(waiting)))]
    kept = list(range(len(rows)))
    while rows:
        yield [tuple(row) for row in rows], kept
        after, kept = [], []
        for place, (session, at) in enumerate(rows):
            if at + 2 < lengths[session]:
                after.append([session, at + 1])
            elif waiting:
                after.append([waiting.pop(0), 0])
            else:
                continue
            kept.append(place)
        rows = after


def cell(x, h, w, u, bias, reset_gate):
    r_x, z_x, c_x = torch.chunk((x if w is None else x @ w.T) + bias[:3].reshape(-1), 3, dim=1)
    u_r, u_z, u_c = torch.chunk(u, 3, dim=0)
    if reset_gate == "before":
        r, z = torch.sigmoid(r_x + h @ u_r.T), torch.sigmoid(z_x + h @ u_z.T)
        c = torch.tanh(c_x + (r * h) @ u_c.T)
    else:  # with a second bias in each gate
        r, z = torch.sigmoid(r_x + h @ u_r.T + bias[3]), torch.sigmoid(z_x + h @ u_z.T + bias[4])
        c = torch.tanh(c_x + r * (h @ u_c.T + bias[5]))
    return (1 - z) * h + z * c


def losses(o: torch.Tensor, settings) -> torch.Tensor:
    """The loss of each row of scores `(M, C)`; the positive of row `r` is column `r`."""
    if settings.activation == "elu":
        o = functional.elu(o, settings.elu)
    elif settings.activation == "tanh":
        o = torch.tanh(o)
    n, columns = o.shape
    own = o[:, :n].diagonal()[:, None]
    others = 1 - torch.eye(n, columns, dtype=o.dtype)
    hard = torch.exp(o - o.max(dim=1, keepdim=True).values) * others
    hard = hard / hard.sum(dim=1, keepdim=True)
    match settings.loss:
        case "cross-entropy":
            return -torch.log(torch.softmax(o, dim=1).diagonal() + TINY)
        case "bpr-max":
            found = -torch.log((hard * torch.sigmoid(own - o)).sum(dim=1) + TINY)
            return found + settings.bpreg * (hard * o**2).sum(dim=1)
        case "bpr":
            return -torch.log(torch.sigmoid(own - o)).mean(dim=1)
        case "top1":
            found = (torch.sigmoid(o - own) + torch.sigmoid(o**2)).mean(dim=1)
            return found - torch.sigmoid(own[:, 0] ** 2) / columns
        case "top1-max":
            return (hard * (torch.sigmoid(o - own) + torch.sigmoid(o**2))).sum(dim=1)


def kept_values(shape: tuple[int, int], p: float, key: int) -> torch.Tensor:
    values = np.ones(shape, np.float32)
    if p:
        drop(values, shape[1], p, np.uint32(key & 0xFFFFFFFF))
    return torch.from_numpy(values).double()


@dataclass
class Adagrad:
    """`acc += g^2; v = momentum v - rate g / sqrt(acc + 1e-6); p += v`, of the rows that were touched."""

    rate: float
    momentum: float

    def step(self, p: torch.Tensor, state: dict, touched: torch.Tensor | None = None) -> None:
        rows = slice(None) if touched is None else touched.unique()
        acc, speed = state.setdefault(id(p), (torch.zeros_like(p), torch.zeros_like(p)))
        with torch.no_grad():
            g = p.grad[rows]
            acc[rows] += g**2
            speed[rows] = self.momentum * speed[rows] - self.rate * g / torch.sqrt(acc[rows] + 1e-6)
            p[rows] += speed[rows]
        p.grad = None


def epoch_plainly(model: GRU4Rec, sessions: list[list[int]], parameters: dict, state: dict, support, sampling, key):
    """Train in place; return the sum of the losses and the number of pairs."""
    settings, total, pairs = model.config, 0.0, 0
    n_layers = len(settings.layers)
    optimiser = Adagrad(settings.learning_rate, settings.momentum)
    states: list[torch.Tensor] = []
    counted = support.clamp(min=1)
    popularity = counted**settings.sample_alpha
    for step, (rows, kept) in enumerate(steps_plainly([len(s) for s in sessions], settings.batch_size)):
        if settings.n_sample == 0 and len(rows) < 2:
            break
        n, step_key = len(rows), int(hash_64(np.uint64((int(key) + step) % 2**64)))
        given = torch.tensor([sessions[s][at] for s, at in rows])
        drawn = np.zeros(settings.n_sample, np.int32)
        draw(drawn, sampling.stay, sampling.other, np.uint64(step_key))
        columns = torch.tensor([sessions[s][at + 1] for s, at in rows] + drawn.tolist())
        if step == 0:
            states = [torch.zeros(n, units, dtype=torch.float64) for units in settings.layers]
        else:
            begins = torch.tensor([at == 0 for _, at in rows])
            states = [torch.where(begins[:, None], 0.0, h[kept].detach()) for h in states]
        table = parameters["items"] if settings.embedding == "constrained" else parameters["inputs"]
        x = table[given]
        if settings.embedding != "none":
            x = x * kept_values(x.shape, settings.dropout_embed, step_key)
        for layer in range(n_layers):
            x = cell(x, states[layer], *(parameters[f"{name}{layer}"] for name in ("w", "u", "b")), settings.reset_gate)
            lanes = padded(n)  # the state stands the other way round in the loop
            hidden_key = int(hash_64(np.uint64((step_key + layer + 1) % 2**64)))
            x = x * kept_values((x.shape[1], lanes), settings.dropout_hidden, hidden_key).T[:n]
            states[layer] = x
        scores = x @ parameters["items"][columns].T + parameters["biases"][columns]
        if settings.loss == "cross-entropy":
            if settings.logq == "exact":
                share, chance = counted / support.sum(), popularity / (popularity * (support > 0)).sum()
                scores = scores - torch.log(settings.batch_size * share + settings.n_sample * chance)[columns]
            else:
                owed = torch.cat([counted[columns[:n]], popularity[columns[n:]]])
                scores = scores - settings.logq * torch.log(owed)
        loss = losses(scores, settings).sum()
        (loss / settings.batch_size).backward()
        total, pairs = total + loss.item(), pairs + n
        constrained = settings.embedding == "constrained"
        optimiser.step(parameters["items"], state, torch.cat([columns, given]) if constrained else columns)
        optimiser.step(parameters["biases"], state, columns)
        if not constrained:
            optimiser.step(parameters["inputs"], state, given)
        for layer in range(n_layers):
            for name in "wub":
                if parameters[f"{name}{layer}"] is not None:
                    optimiser.step(parameters[f"{name}{layer}"], state)
    return total, pairs


def parameters_of(model: GRU4Rec, items, inputs, cells) -> dict[str, torch.Tensor | None]:
    shape, dim = model._shape(), model.config.layers[-1]
    found = {"items": items[:, :dim], "biases": items[:, dim], "inputs": inputs[:, : shape.of_item]}
    for layer, (n_inputs, n_units) in enumerate(zip(shape.n_inputs, shape.n_units, strict=True)):
        w, u, bias = weights_of(cells[0], layer, shape.n_inputs, shape.n_units)
        found |= {f"w{layer}": w[:, :n_inputs], f"u{layer}": u[:, :n_units], f"b{layer}": bias[:, :n_units]}
    return {
        name: torch.tensor(values, dtype=torch.float64, requires_grad=True) if values.size else None
        for name, values in found.items()
    }


SMALL = {
    "layers": (10,), "batch_size": 5, "n_sample": 12, "learning_rate": 0.1, "dropout_embed": 0.0, "sample_alpha": 0.5,
}  # fmt: skip
VARIANTS = [
    {},
    {"logq": 0.0, "momentum": 0.3},
    {"logq": "exact", "reset_gate": "after"},
    {"n_sample": 0},
    {"batch_size": 21, "layers": (33,), "momentum": 0.2},
    {"layers": (7, 18), "dropout_embed": 0.2, "dropout_hidden": 0.4, "momentum": 0.1},
    {"embedding": "separate"},
    {"embedding": "separate", "embedding_dim": 6, "layers": (8, 5), "reset_gate": "after", "momentum": 0.2},
    {"embedding": "none"},
    {"embedding": "none", "layers": (6, 9), "dropout_hidden": 0.3, "momentum": 0.1, "reset_gate": "after"},
    {"loss": "bpr-max", "bpreg": 0.7},
    {"loss": "bpr-max", "activation": "elu", "elu": 0.5, "embedding": "separate", "momentum": 0.4},
    {"loss": "bpr", "activation": "tanh", "embedding": "none", "n_sample": 0},
    {"loss": "top1", "activation": "tanh"},
    {"loss": "top1-max", "activation": "elu"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_compiled_loop_is_the_algorithm(variant):
    model = GRU4Rec(**SMALL | variant)
    rng = np.random.default_rng(3)
    sessions = [rng.integers(0, 17, rng.integers(1, 7)).tolist() for _ in range(40)]
    support = np.bincount(np.concatenate(sessions), minlength=17).astype(np.float64)
    log = SessionLog.from_lists([[s] for s in sessions])
    items, inputs, cells = model._initial(17, model._shape(), rng)
    items.values[:, model.config.layers[-1]] = rng.normal(0, 0.1, 17)  # biases that matter
    parameters, state = parameters_of(model, items.values, inputs.values, cells.values), {}
    sampling, shape = model._sampling(support), model._shape()
    starts, stops = log.session_offsets[:-1], log.session_offsets[1:]
    codes = np.concatenate(sessions).astype(np.int32)
    for key in (np.uint64(11), np.uint64(12)):
        loss, pairs, failed = epoch(
            codes, starts, stops, items, items if shape.of_item == 0 else inputs, cells,
            shape.n_inputs, shape.n_units, model._rules(), sampling, key,
        )  # fmt: skip
        slowly = epoch_plainly(model, sessions, parameters, state, torch.tensor(support), sampling, key)
        assert (loss, pairs, failed) == (pytest.approx(slowly[0], rel=1e-5), slowly[1], -1)
    for name, found in parameters_of(model, items.values, inputs.values, cells.values).items():
        if found is not None:
            assert torch.allclose(found, parameters[name], rtol=0, atol=1e-5), name


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_session_parallel_steps_are_those_of_the_procedure(batch_size):
    lengths = np.random.default_rng(batch_size).integers(1, 6, 30)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    steps = list(SessionParallel(offsets[:-1], offsets[1:], batch_size))
    slowly = list(steps_plainly(lengths.tolist(), batch_size))
    assert len(steps) == len(slowly)
    for step, (rows, kept) in zip(steps, slowly, strict=True):
        assert step.inputs.tolist() == [offsets[s] + at for s, at in rows]
        assert step.fresh.tolist() == [at == 0 for _, at in rows]
        assert step.kept.tolist() == kept


def test_resetting_after_is_the_cell_of_torch():
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    w, u, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((15, 3), (15, 5), (6, 5)))
    found = walk(x @ w.T, np.arange(5), h, u, bias, True)
    theirs = torch.nn.GRUCell(3, 5)
    turned = np.repeat([1, -1, 1], 5).astype(np.float32)  # their z keeps what ours replaces
    with torch.no_grad():
        theirs.weight_ih.copy_(torch.from_numpy(w * turned[:, None]))
        theirs.weight_hh.copy_(torch.from_numpy(u * turned[:, None]))
        theirs.bias_ih.copy_(torch.from_numpy(bias[:3].reshape(-1) * turned))
        theirs.bias_hh.copy_(torch.from_numpy(bias[3:].reshape(-1) * turned))
        expected = theirs(torch.from_numpy(x), torch.from_numpy(h)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
