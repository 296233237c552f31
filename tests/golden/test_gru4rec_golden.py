"""Values of GRU4Rec's losses, cell and optimiser that were computed with numpy from the published formulas."""

import numpy as np
import pytest

from nextsession.nn.gru4rec_cell import forward, walk
from nextsession.nn.gru4rec_epoch import move
from nextsession.nn.gru4rec_losses import BPR_MAX, ELU, LINEAR, TOP1, TOP1_MAX, cross_entropy, pairwise
from nextsession.nn.gru4rec_products import LANES

SCORES = np.array([[2, 0.5, -1], [-0.3, 1, 0.2]], np.float32)  # two sessions, three columns; positives on the diagonal


def found(loss, **settings):
    """The loss of each session alone: the other's positive is still a column."""
    values = []
    for row in range(2):
        scores = np.zeros((3, LANES), np.float32)
        scores[:, 0] = SCORES[row]
        values.append(loss(scores, 3, 1, LANES, np.array([row]), **settings))
    return values


def paired(kind, activation=LINEAR):
    counts = np.ones(3, np.float32)
    return found(pairwise, counts=counts, n_columns=3, kind=kind, bpreg=1.0, activation=activation, elu=0.5)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1, 1, 1], [0.241311, 0.543406]), ([1 / 10, 1 / 40, 5**-0.5], [0.245638, 2.315301])],
    ids=["plain", "logq"],
)
def test_cross_entropy(weights, expected):
    weights = np.array(weights, np.float32)
    assert found(cross_entropy, weights=weights, target_weights=weights) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "activation", "expected"),
    [
        (BPR_MAX, LINEAR, [0.558555, 0.378854]),
        (BPR_MAX, ELU, [0.371245, 0.362279]),
        (TOP1, LINEAR, [0.674362, 0.685558]),
        (TOP1_MAX, LINEAR, [0.750783, 0.788547]),
    ],
    ids=["bpr-max", "bpr-max elu", "top1", "top1-max"],
)
def test_pairwise_losses(kind, activation, expected):
    assert paired(kind, activation) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("reset_gate", "expected"), [("before", [0.583014, -0.238592]), ("after", [0.584283, -0.242622])]
)
def test_the_two_forms_of_the_cell(reset_gate, expected):
    gates = np.array([-0.2, 0.4, 0.1, -0.3, 0.3, 0.2], np.float32)
    state = np.array([0.7, -0.4], np.float32)
    u = [[[0.4, 0.1], [-0.2, 0.3]], [[-0.6, 0.2], [0.1, 0.5]], [[0.5, -0.3], [0.2, 0.4]]]
    u = np.concatenate([np.array(block, np.float32).T for block in u])  # the values are those of h U, ours of U h
    one = np.array([0, 1])
    answered = walk(gates[None].copy(), one, state[None], u, np.zeros((6, 2), np.float32), reset_gate == "after")[0]
    assert answered == pytest.approx(expected, abs=1e-5)
    wide = np.zeros((6, LANES), np.float32), np.zeros((2, LANES), np.float32), np.zeros((2, LANES), np.float32)
    wide[0][:, 3], wide[2][:, 3] = gates, state
    padded_u, output = np.zeros((6, LANES), np.float32), np.zeros((2, LANES), np.float32)
    padded_u[:, :2] = u
    none, bias = np.zeros((6, 0), np.float32), np.zeros((6, LANES), np.float32)
    forward(none, padded_u, bias, *wide, output, np.zeros((0, LANES), np.float32), 0, LANES, reset_gate == "after")
    assert output[:, 3] == pytest.approx(expected, abs=1e-5)


def test_adagrad_with_momentum():
    p, squares, speed = (np.zeros(1, np.float32) for _ in range(3))
    for gradient, at, by in ((1, -0.1000000, -0.1), (2, -0.2394426, -0.1394427)):
        move(p, squares, speed, np.array([gradient], np.float32), 1, np.float32(0.1), np.float32(0.5))
        assert (p[0], speed[0]) == (pytest.approx(at, abs=1e-6), pytest.approx(by, abs=1e-6))
    assert squares[0] == 5  # it begins at nothing
