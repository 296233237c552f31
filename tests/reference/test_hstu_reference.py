"""HSTU over jagged rows against loops over one row, one place and one head at a time."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextsession.nn.hstu import HSTUBlock, HSTUEncoder, HSTUForm
from nextsession.nn.jagged import Jagged

Floats = NDArray[np.float64]

FORMS = {
    "published": HSTUForm(longest=9, heads=1, dqk=6, dv=6, normaliser="constant", rate=0.0),
    "heads": HSTUForm(longest=9, heads=2, dqk=3, dv=4, rate=0.0),
    "distance only": HSTUForm(longest=9, heads=2, dqk=4, dv=3, times=False, rate=0.0),
    "time only": HSTUForm(longest=9, heads=1, dqk=5, dv=2, positions=False, rate=0.0),
    "neither": HSTUForm(longest=9, heads=3, dqk=2, dv=2, positions=False, times=False, rate=0.0),
    "concat": HSTUForm(longest=9, heads=2, dqk=3, dv=3, concat=True, rate=0.0),
}


def row_by_row(encoder: HSTUEncoder, rows: Jagged) -> Floats:
    """Encode rows the slow and obvious way."""
    found = []
    for r in range(len(rows)):
        a, z = int(rows.offsets[r]), int(rows.offsets[r + 1])
        x = rows.values[a:z].detach().double().numpy()
        times = None
        if rows.times is not None and rows.asked_at is not None:
            times = [*(int(t) / 1000 for t in rows.times[a:z]), int(rows.asked_at[r]) / 1000]
        for block in encoder.blocks:
            assert isinstance(block, HSTUBlock)
            x = x + block_by_loops(block, x, times)
        found.append(x)
    return np.concatenate(found)


def block_by_loops(block: HSTUBlock, x: Floats, times: list[float] | None) -> Floats:
    """Return what a block adds to one row, `(n, D)`; `times` are in seconds, one more than events."""
    form = block.form
    w = numbers(block.of_input.weight)
    out, bias = numbers(block.project.weight), numbers(block.project.bias)
    mapped = np.array([[silu(v) for v in w @ normed(row)] for row in x]).reshape(len(x), len(w))
    wide, narrow = form.heads * form.dv, form.heads * form.dqk
    u, v = mapped[:, :wide], mapped[:, wide : 2 * wide]
    q, k = mapped[:, 2 * wide : 2 * wide + narrow], mapped[:, 2 * wide + narrow :]
    added = np.zeros_like(x)
    for i in range(len(x)):
        attended = np.zeros(wide)
        for h in range(form.heads):
            of_head, keys = slice(h * form.dv, (h + 1) * form.dv), slice(h * form.dqk, (h + 1) * form.dqk)
            for j in range(i + 1):
                score = float(q[i, keys] @ k[j, keys])
                if block.by_distance is not None:
                    score += numbers(block.by_distance)[form.longest - 1 + j - i]
                if block.by_time is not None:
                    assert times is not None
                    score += numbers(block.by_time)[bucket(times[i + 1] - times[j])]
                n = form.longest + 11 if form.normaliser == "constant" else i + 1
                attended[of_head] += silu(score) / n * v[j, of_head]
        attended = normed(attended)
        part = u[i] * attended
        added[i] = out @ (np.concatenate([u[i], attended, part]) if form.concat else part) + bias
    return added


def bucket(seconds: float) -> int:
    return min(math.floor(math.log(max(1.0, abs(seconds))) / 0.301), 128)


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def normed(x: Floats) -> Floats:
    centred: Floats = x - x.mean()
    found: Floats = centred / np.sqrt((centred**2).mean() + 1e-6)
    return found


def numbers(weight: Tensor) -> Floats:
    found: Floats = weight.detach().double().numpy()
    return found


def some_rows(dim: int, lengths: tuple[int, ...] = (5, 0, 1, 9, 3)) -> Jagged:
    """Return rows of vectors, with gaps of seconds to months between their events."""
    rng = np.random.default_rng(3)
    n, offsets = sum(lengths), np.concatenate([[0], np.cumsum(lengths)])
    times, asked = np.zeros(n, np.int64), np.zeros(len(lengths), np.int64)
    for r, length in enumerate(lengths):
        gaps = np.exp(rng.uniform(0, 22, length + 1)).astype(np.int64)  # ms
        row = 1_600_000_000_000 + np.cumsum(gaps)
        times[offsets[r] : offsets[r + 1]], asked[r] = row[:-1], row[-1]
    values = torch.from_numpy(rng.normal(size=(n, dim))).float()
    return Jagged(values, torch.from_numpy(offsets), max(lengths), torch.from_numpy(times), torch.from_numpy(asked))


def an_encoder(form: HSTUForm, dim: int = 7) -> HSTUEncoder:
    """Return an encoder with weights that matter."""
    torch.manual_seed(0)
    encoder = HSTUEncoder(dim, 2, form)
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return encoder.eval()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_rows_are_encoded_as_by_loops(form: HSTUForm) -> None:
    encoder, rows = an_encoder(form), some_rows(7)
    np.testing.assert_allclose(encoder(rows).detach().numpy(), row_by_row(encoder, rows), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_gradients_are_those_of_float64(form: HSTUForm) -> None:
    encoder, rows = an_encoder(form), some_rows(7)
    towards = torch.randn(rows.values.shape, generator=torch.Generator().manual_seed(1))
    exact = HSTUEncoder(7, 2, form).double()
    exact.load_state_dict(encoder.state_dict())
    found, wanted = gradients(encoder, rows, towards), gradients(exact, rows, towards)
    for name, gradient in found.items():
        scale = float(wanted[name].abs().max())
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-3, atol=1e-4 * scale, err_msg=name)


def gradients(encoder: HSTUEncoder, rows: Jagged, towards: Tensor) -> dict[str, Tensor]:
    kind = next(encoder.parameters()).dtype
    values = rows.values.to(kind, copy=True).requires_grad_()
    (encoder(rows.with_values(values)) * towards.to(kind)).sum().backward()
    return {name: w.grad for name, w in encoder.named_parameters() if w.grad is not None} | {"rows": _grad(values)}


def _grad(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_gradient_is_that_of_small_steps(form: HSTUForm) -> None:
    encoder, rows = an_encoder(form).double(), some_rows(7, (4, 2))
    values = rows.values.double().requires_grad_()

    def total(x: Tensor) -> Tensor:
        found: Tensor = encoder(rows.with_values(x)).sin().sum()
        return found

    assert torch.autograd.gradcheck(total, (values,))
