"""Encoders of sessions against a loop over sessions, in value and gradient; what they may and may not depend on."""

import pytest
import torch
from torch import Tensor, nn

from nextsession.data.log import offsets_of
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.session_encoders import (
    Attentive,
    Max,
    Mean,
    Recurrent,
    Separate,
    SessionEncoder,
    Weighed,
    sessions_of,
)

DIM = 6
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 1, 70]
ENCODERS = ["mean", "max", "max-relu", "gru", "gru of two layers", "transformer", "separate", "latest", "weighed"]
UNORDERED = ["mean", "max", "max-relu", "separate", "weighed"]


def encoder_of(name: str) -> SessionEncoder:
    torch.manual_seed(3)
    found: SessionEncoder = {
        "mean": Mean,
        "max": Max,
        "max-relu": lambda: Max(relu=True),
        "gru": lambda: Recurrent(DIM, 1),
        "gru of two layers": lambda: Recurrent(DIM, 2),
        "transformer": lambda: Attentive(DIM, 2, 2, 0.0),
        "separate": lambda: Separate(DIM),
        "latest": lambda: Separate(DIM, latest=True),
        "weighed": lambda: Weighed(DIM),
    }[name]()
    for weight in found.parameters():
        nn.init.normal_(weight, std=0.4)
    return found.eval()


def sessions(lengths: list[int] = LENGTHS, seed: int = 0) -> tuple[Jagged, Tensor]:
    """Return vectors of the events of sessions, and which were wanted; of the first sessions all, none and some."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), DIM, generator=generator)
    wanted = (torch.rand(sum(lengths), generator=generator) < 0.4).float()
    wanted[:6] = torch.tensor([1.0, 0, 0, 0, 1, 0])[: len(wanted)]
    return Jagged(values, torch.from_numpy(offsets_of(lengths)), max(lengths)), wanted


def slowly(encoder: SessionEncoder, events: Tensor, wanted: Tensor) -> Tensor:
    """Encode one session, `(n, D)`, from the definition."""
    match encoder:
        case Mean():
            return sum(events, torch.zeros(DIM)) / len(events)
        case Max():
            rows = [e.clamp(min=0) for e in events] if encoder.relu else list(events)
            return torch.stack(rows).amax(0)
        case Recurrent():
            states = events
            unit = encoder.unit.unit
            for layer in range(unit.num_layers):
                into, again, b, c = (getattr(unit, name) for name in unit._all_weights[layer])
                h, found = torch.zeros(DIM), []
                for x in states:
                    (rx, zx, nx), (rh, zh, nh) = (into @ x + b).chunk(3), (again @ h + c).chunk(3)
                    r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
                    h = (1 - z) * torch.tanh(nx + r * nh) + z * h
                    found.append(h)
                states = torch.stack(found)
            return states[-1]
        case Attentive():
            placed = torch.stack([e + encoder.places[min(i, 63)] for i, e in enumerate(events)])
            alone = Jagged(placed, torch.tensor([0, len(events)]), len(events))
            return encoder.blocks(alone).mean(0)
        case Separate():
            liked = [e for e, w in zip(events, wanted, strict=True) if w == 1]
            others = [e for e, w in zip(events, wanted, strict=True) if w == 0]
            means = [sum(part, torch.zeros(DIM)) / len(part) if part else torch.zeros(DIM) for part in (liked, others)]
            counts = torch.tensor([len(liked), len(others)]).double().log1p().float()
            ends = [liked[-1] if liked else torch.zeros(DIM)] if encoder.latest else []
            return encoder.mix(torch.cat([*means, *ends, counts]))
        case Weighed():
            scores = torch.cat([encoder.weigh(e) for e in events])
            return torch.softmax(scores, 0) @ events
    raise AssertionError(encoder)


def gradients(encoder: SessionEncoder, of: Tensor, found: Tensor) -> list[Tensor]:
    """Return the gradients of the events and of the weights, if every number of the result counts differently."""
    counts = torch.linspace(-1, 2, found.numel()).view_as(found)
    return list(torch.autograd.grad((found * counts).sum(), [of, *encoder.parameters()]))


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("name", ENCODERS)
def test_sessions_are_encoded_as_by_a_loop(name: str, labels: bool) -> None:
    encoder, (rows, wanted) = encoder_of(name), sessions()
    values = rows.values.clone().requires_grad_()
    rows = rows.with_values(values)
    found = encoder(rows, wanted if labels else None)
    edges = list(zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True))
    every = wanted if labels else torch.ones_like(wanted)
    expected = torch.stack([slowly(encoder, values[a:z], every[a:z]) for a, z in edges])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    own, theirs = gradients(encoder, values, found), gradients(encoder, values, expected)
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_session_alone_is_the_session_in_company(name: str) -> None:
    encoder, (rows, wanted) = encoder_of(name), sessions()
    found = encoder(rows, wanted)
    for s, (a, z) in enumerate(zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True)):
        alone = Jagged(rows.values[a:z], torch.tensor([0, z - a]), z - a)
        torch.testing.assert_close(encoder(alone, wanted[a:z])[0], found[s], rtol=1e-5, atol=1e-6)
        roomy = Jagged(rows.values[a:z], torch.tensor([0, z - a]), z - a + 9)
        torch.testing.assert_close(encoder(roomy, wanted[a:z])[0], found[s], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_only_some_read_the_order_of_events(name: str) -> None:
    encoder, (rows, wanted) = encoder_of(name), sessions()
    turned = torch.cat(
        [
            torch.arange(z - 1, a - 1, -1)
            for a, z in zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True)
        ]
    )
    before, after = encoder(rows, wanted), encoder(rows.with_values(rows.values[turned]), wanted[turned])
    same = [torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(before, after, strict=True)]
    few = [int(part.sum()) < 2 for part in wanted.split(LENGTHS)]  # events that were wanted: the last is the first
    assert same == [
        name in UNORDERED or length == 1 or (name == "latest" and alone)
        for length, alone in zip(LENGTHS, few, strict=True)
    ]


@pytest.mark.parametrize("name", ["mean", "max", "gru", "weighed"])
def test_an_event_counts_as_often_as_it_occurs(name: str) -> None:
    encoder, (rows, _) = encoder_of(name), sessions([2])
    doubled = Jagged(rows.values[[0, 1, 1]], torch.tensor([0, 3]), 3)
    assert torch.allclose(encoder(rows, None), encoder(doubled, None)) == (name == "max")


def test_a_maximum_that_several_events_reach_moves_them_alike() -> None:
    rows = Jagged(torch.tensor([[1.0], [3.0], [3.0], [2.0]], requires_grad=True), torch.tensor([0, 3, 4]), 3)
    Max()(rows, None).sum().backward()
    assert rows.values.grad is not None
    assert rows.values.grad.flatten().tolist() == [0, 0.5, 0.5, 1]


def test_nothing_above_zero_is_zero_and_moves_nothing() -> None:
    rows = Jagged(torch.tensor([[-1.0], [-3.0]], requires_grad=True), torch.tensor([0, 2]), 2)
    found = Max(relu=True)(rows, None)
    found.sum().backward()
    assert found.item() == 0
    assert rows.values.grad is not None
    assert not rows.values.grad.any()


def test_two_means_begin_as_the_mean_of_what_was_wanted() -> None:
    torch.manual_seed(0)
    encoder, (rows, wanted) = Separate(DIM), sessions()
    found = encoder(rows, wanted)
    torch.testing.assert_close(found[2], rows.values[4], rtol=0, atol=0.5)  # one of three events was wanted
    assert found[1].abs().max() < 0.5  # none was


@pytest.mark.parametrize("name", ENCODERS)
def test_no_sessions(name: str) -> None:
    empty = Jagged(torch.zeros(0, DIM), torch.zeros(1, dtype=torch.int64), 0)
    assert encoder_of(name)(empty, torch.zeros(0)).shape == (0, DIM)


@pytest.mark.parametrize("name", ENCODERS)
def test_great_numbers_stay_numbers(name: str) -> None:
    encoder, (rows, wanted) = encoder_of(name), sessions()
    values = (rows.values * 1e4).requires_grad_()
    found = encoder(rows.with_values(values), wanted)
    found.sum().backward()
    assert found.isfinite().all()
    assert values.grad is not None
    assert values.grad.isfinite().all()


def test_the_events_of_a_batch_session_by_session() -> None:
    events, sessions = Jagged.of([[1, 2, 3], [], [4, 5]]), Jagged.of([[0, 2], [], [3]])
    batch = Batch(events, sessions)
    rows = sessions_of(batch, torch.arange(5.0)[:, None])
    assert rows.offsets.tolist() == [0, 2, 3, 5]
    assert rows.longest == 2
    assert rows.values.flatten().tolist() == [0, 1, 2, 3, 4]
    nothing = sessions_of(Batch(Jagged.of([[], []]), Jagged.of([[], []])), torch.zeros(0, 1))
    assert (len(nothing), nothing.longest) == (0, 0)
