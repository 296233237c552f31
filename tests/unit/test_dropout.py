import numpy as np
import pytest
import torch

from nextsession.nn.ops.dropout import dropout


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, requires_grad=True)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_right_share_of_numbers_is_dropped_and_the_mean_stays(p):
    n = 400_000
    x = dropout(torch.ones(n), p, training=True)
    kept = (x != 0).double()
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(float(kept.mean()) - (1 - p)) < 5 * deviation
    torch.testing.assert_close(x[x != 0], torch.full((int(kept.sum()),), 1 / (1 - p)))


def test_numbers_are_dropped_independently_of_their_neighbours_and_of_other_calls():
    p, n = 0.3, 400_000
    one, other = (dropout(torch.ones(n), p, training=True) == 0 for _ in range(2))
    deviation = (p**2 * (1 - p**2) / n) ** 0.5
    for lag in (1, 2, 16, 64, 1 << 16):
        assert abs(float((one[lag:] & one[:-lag]).double().mean()) - p**2) < 6 * deviation
    assert abs(float((one & other).double().mean()) - p**2) < 6 * deviation
    assert abs(float((one.view(-1, 64).sum(1)).double().var()) / (64 * p * (1 - p)) - 1) < 0.1


def test_every_place_is_dropped_at_its_share_over_seeds():
    drops = np.mean([(dropout(torch.ones(64), 0.5, training=True) == 0).numpy() for _ in range(4000)], axis=0)
    assert np.abs(drops - 0.5).max() < 0.05


def test_the_gradient_has_the_mask_of_the_value():
    x = ones(300, 700)
    y = dropout(x, 0.2, training=True)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, y)


def test_any_layout_of_x_and_of_the_gradient_is_served():
    x = torch.randn(40, 30, requires_grad=True)
    y = dropout(x.t(), 0.5, training=True)
    weights = torch.randn(40, 30)
    (grad,) = torch.autograd.grad(y, x, weights.t())
    kept = y.t() != 0
    assert torch.equal(y.t(), torch.where(kept, 2 * x, torch.zeros(())))
    assert torch.equal(grad, torch.where(kept, 2 * weights, torch.zeros(())))


def test_the_seed_of_torch_decides_the_mask():
    def draw(seed):
        torch.manual_seed(seed)
        return dropout(torch.ones(1000), 0.5, training=True)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_without_a_share_or_outside_training_nothing_changes(p, training):
    x = torch.randn(10)
    assert dropout(x, p, training) is x


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_types_are_served(kind):
    x = dropout(torch.ones(1000, dtype=kind), 0.5, training=True)
    assert x.dtype == kind
    assert set(x.tolist()) == {0.0, 2.0}


def test_an_empty_tensor_stays_empty():
    assert dropout(torch.empty(0, 4), 0.5, training=True).shape == (0, 4)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_share_is_from_0_to_less_than_1(p):
    with pytest.raises(ValueError, match="share"):
        dropout(torch.ones(3), p, training=True)
