"""GRUs over jagged rows, and additive attention, against loops over one row at a time; values and gradients."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nextsession.nn.jagged import Jagged
from nextsession.nn.ops.additive_attention import additive_attention, additive_attention_plainly
from nextsession.nn.recurrent import GRU, step_by_step

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=6)


def rows_of(lengths, dim, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    events = Jagged.of([[0] * n for n in lengths])
    values = torch.randn(sum(lengths), dim, generator=generator, dtype=dtype)
    return events.with_values(values.requires_grad_())


def plain_gru(unit, row):
    """The states of one row, step by step, as in the paper (with PyTorch's order of gates)."""
    for layer in range(unit.num_layers):
        into, again = getattr(unit, f"weight_ih_l{layer}"), getattr(unit, f"weight_hh_l{layer}")
        nothing = into.new_zeros(len(into))
        of_into, of_again = (getattr(unit, f"bias_{x}h_l{layer}", nothing) for x in "ih")
        state, states = into.new_zeros(unit.hidden_size), []
        for x in row:
            r, z, n = (into @ x + of_into).chunk(3)
            hr, hz, hn = (again @ state + of_again).chunk(3)
            reset, update = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
            state = (1 - update) * torch.tanh(n + reset * hn) + update * state
            states.append(state)
        row = torch.stack(states)
    return row


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
@given(lengths=LENGTHS, layers=st.integers(1, 2), bias=st.booleans())
def test_gru_is_a_loop_over_rows_and_steps(dtype, close, lengths, layers, bias):
    torch.manual_seed(1)
    encoder = GRU(3, layers, width=4, bias=bias).to(dtype)
    exact = GRU(3, layers, width=4, bias=bias).double()
    exact.load_state_dict(encoder.state_dict())
    rows, exact_rows = rows_of(lengths, 3, dtype), rows_of(lengths, 3)
    exact_rows.values.data.copy_(rows.values.data)
    found = encoder(rows)
    assert found.shape == (sum(lengths), 4)
    if not sum(lengths):
        return
    parts = [plain_gru(exact.unit, row) for row in torch.split(exact_rows.values, lengths) if len(row)]
    expected = torch.cat(parts)
    torch.testing.assert_close(found.double(), expected, rtol=close, atol=close)
    direction = torch.randn_like(expected)
    grads = torch.autograd.grad(found, [rows.values, *encoder.parameters()], direction.to(dtype))
    expected_grads = torch.autograd.grad(expected, [exact_rows.values, *exact.parameters()], direction)
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=close * 10, atol=close * 10)


def test_dropout_between_layers_in_training_only():
    torch.manual_seed(0)
    encoder, rows = GRU(4, 2, rate=0.5), rows_of([5, 2], 4, torch.float32)
    assert not torch.equal(encoder(rows), encoder(rows))
    encoder.eval()
    assert torch.equal(encoder(rows), encoder(rows))


@given(lengths=LENGTHS)
def test_step_by_step(lengths):
    events = Jagged.of([[10 * r + t for t in range(n)] for r, n in enumerate(lengths)])
    order, sizes = step_by_step(events)
    by_length = sorted(range(len(lengths)), key=lambda r: -lengths[r])
    steps = [[10 * r + t for r in by_length if lengths[r] > t] for t in range(max(lengths))]
    assert events.values[order].tolist() == list(itertools.chain(*steps))
    assert sizes.tolist() == [len(step) for step in steps]


def test_gru_is_float32_where_products_are_not():
    encoder, rows = GRU(4), rows_of([3, 2], 4, torch.float32)
    plain = encoder(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(rows.with_values(rows.values.bfloat16()))
    torch.testing.assert_close(found, plain, rtol=0.05, atol=0.05)
    assert found.dtype == torch.float32


# -- additive attention -----------------------------------------------------------------------------


def asked(lengths, everywhere, dtype, seed=3):
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    events = Jagged.of([[0] * k for k in lengths])
    if everywhere:
        starts, stops = events.offsets[:-1][events.rows], torch.arange(n) + 1
    else:
        starts, stops = events.offsets[:-1], events.offsets[1:]
    shapes = ((len(starts), 5), (n, 5), (n, 3), (5,))
    given_ = [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes
    ]
    return [*given_, starts, stops]


def loop(queries, keys, values, weight, starts, stops):
    found = []
    for query, start, stop in zip(queries, starts.tolist(), stops.tolist(), strict=True):
        total = values.new_zeros(values.shape[1])
        for t in range(start, stop):
            total = total + (weight * torch.sigmoid(query + keys[t])).sum() * values[t]
        found.append(total)
    return torch.stack(found) if found else values.new_zeros((0, values.shape[1]))


@pytest.mark.parametrize("form", [additive_attention, additive_attention_plainly])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@given(lengths=LENGTHS, everywhere=st.booleans())
def test_additive_attention_is_a_loop_over_pairs(form, dtype, close, lengths, everywhere):
    parts, exact = asked(lengths, everywhere, dtype), asked(lengths, everywhere, torch.float64)
    found, expected = form(*parts), loop(*exact)
    torch.testing.assert_close(found.double(), expected, rtol=close, atol=close)
    if not sum(lengths):
        return
    direction = torch.randn(expected.shape, dtype=torch.float64)
    grads = torch.autograd.grad(found, parts[:4], direction.to(dtype))
    expected_grads = torch.autograd.grad(expected, exact[:4], direction)
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=close * 10, atol=close * 10)


def test_additive_attention_of_large_numbers_is_finite():
    parts = [torch.tensor([[500.0, -500.0]]), torch.tensor([[500.0, -500.0]]), torch.ones(1, 2), torch.ones(2)]
    parts = [x.requires_grad_() for x in parts]
    found = additive_attention(*parts, torch.tensor([0]), torch.tensor([1]))
    torch.testing.assert_close(found, torch.ones(1, 2))
    for gradient in torch.autograd.grad(found.sum(), parts):
        assert gradient.isfinite().all()
