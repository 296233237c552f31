import functools
from itertools import pairwise

import numpy as np
import pytest
import torch

from nextsession.nn.ops import work
from nextsession.nn.ops.silu_attention import (
    N_BUCKETS,
    silu_attention,
    silu_attention_plainly,
    time_buckets,
    time_buckets_plainly,
)

LENGTHS = (5, 0, 1, 17, 53, 100, 7, 0)


def offsets_of(lengths):
    return torch.tensor([0, *np.cumsum(lengths)])


def times_of(lengths, seed=0):
    """Times over twelve orders of magnitude, and the times of what follows."""
    rng = np.random.default_rng(seed)
    rows = [np.sort((10 ** rng.uniform(0, 12, n + 1)).astype(np.int64)) for n in lengths]
    return tuple(torch.tensor(np.concatenate(part)) for part in ([x[:-1] for x in rows], [x[1:] for x in rows]))


def with_gradients(form, inputs, grad, kind, **keywords):
    inputs = [x.to(kind).requires_grad_() for x in inputs]
    named = dict(zip(("position_bias", "time_bias"), inputs[3:], strict=False))
    out = form(*inputs[:3], **named, **keywords)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(kind))]


def batch(lengths, across, out_across, biased, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    shapes = [(tokens, across), (tokens, across), (tokens, out_across)]
    shapes += [(2 * max(lengths) + 3,), (N_BUCKETS,)] if biased else []
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    keywords = {"offsets": offsets_of(lengths), "longest": max(lengths), "normaliser": 7.0}
    if biased:
        keywords["buckets"] = time_buckets(*times_of(lengths), keywords["offsets"])
    return inputs, torch.randn(tokens, out_across, generator=generator), keywords


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("heads", "width", "value_width"), [(2, 25, 25), (1, 50, 64), (2, 32, 16)])
def test_the_compiled_form_equals_the_plain_one_in_float64_in_value_and_gradients(heads, width, value_width, biased):
    inputs, grad, keywords = batch(LENGTHS, heads * width, heads * value_width, biased)
    fast = with_gradients(silu_attention, inputs, grad, torch.float32, heads=heads, **keywords)
    plain = with_gradients(silu_attention_plainly, inputs, grad, torch.float64, heads=heads, **keywords)
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("lengths", [(0,), (1,), (6,), (7,), (48,), (49,), (97, 1)])
def test_rows_about_the_edges_of_tiles_and_blocks_are_attended_in(lengths):
    inputs, grad, keywords = batch(lengths, 10, 6, biased=True)
    fast = with_gradients(silu_attention, inputs, grad, torch.float32, heads=2, **keywords)
    plain = with_gradients(silu_attention_plainly, inputs, grad, torch.float64, heads=2, **keywords)
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_one_of_the_two_biases_may_be_absent():
    inputs, grad, keywords = batch(LENGTHS, 8, 8, biased=True)
    only_time = keywords
    only_place = {name: value for name, value in keywords.items() if name != "buckets"}
    for name, others in (("position_bias", only_place), ("time_bias", only_time)):
        chosen = [*inputs[:3], inputs[3 if name == "position_bias" else 4]]

        def attend(form, kind, name=name, others=others, chosen=chosen):
            given = [x.to(kind).requires_grad_() for x in chosen]
            out = form(*given[:3], **{name: given[3]}, heads=1, **others)
            return [out, *torch.autograd.grad(out, given, grad.to(kind))]

        for ours, theirs in zip(
            attend(silu_attention, torch.float32), attend(silu_attention_plainly, torch.float64), strict=True
        ):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_the_plain_form_has_the_gradients_of_its_values():
    inputs, _, keywords = batch((3, 0, 1, 4), 4, 6, biased=True)
    inputs = [x.double().requires_grad_() for x in inputs]

    def attend(q, k, v, position, time):
        return silu_attention_plainly(q, k, v, position_bias=position, time_bias=time, heads=2, **keywords)

    assert torch.autograd.gradcheck(attend, inputs)


def test_a_row_alone_has_the_result_of_a_row_in_company():
    inputs, _, keywords = batch(LENGTHS, 16, 16, biased=True)
    q, k, v, position, time = inputs
    together = silu_attention(q, k, v, position_bias=position, time_bias=time, heads=2, **keywords)
    edges = keywords["offsets"].tolist()
    happened, asked = times_of(LENGTHS)
    for start, stop in pairwise(edges):
        row, offsets = slice(start, stop), torch.tensor([0, stop - start])
        alone = silu_attention(
            q[row], k[row], v[row], offsets, stop - start, heads=2, normaliser=7.0, position_bias=position,
            time_bias=time, buckets=time_buckets(happened[row], asked[row], offsets),
        )  # fmt: skip
        torch.testing.assert_close(together[row], alone, rtol=1e-6, atol=1e-6)


def test_a_token_sees_nothing_later_and_no_other_row():
    (q, k, v), _, keywords = batch((20, 30), 8, 8, biased=False)
    attend = functools.partial(silu_attention, heads=1, **keywords)
    before = attend(q, k, v)
    k[12], v[12] = 50.0, -50.0
    changed = (before != attend(q, k, v)).any(1)
    assert not changed[:12].any()
    assert not changed[20:].any()
    assert changed[12]


def test_huge_scores_stay_finite():
    inputs, grad, keywords = batch((1, 12), 8, 8, biased=False)
    inputs = [100 * inputs[0], 100 * inputs[1], inputs[2]]
    outcome = with_gradients(silu_attention, inputs, grad, torch.float32, heads=1, **keywords)
    assert all(bool(x.isfinite().all()) for x in outcome)


def test_bfloat16_is_near_float32():
    (q, k, v), _, keywords = batch(LENGTHS, 16, 16, biased=False)
    out = silu_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), heads=2, **keywords)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), silu_attention(q, k, v, heads=2, **keywords), atol=0.2, rtol=0.05)


def test_threads_share_the_rows(monkeypatch):
    monkeypatch.setattr(work, "SMALL", 0)
    inputs, grad, keywords = batch(LENGTHS, 16, 16, biased=True)
    attend = functools.partial(with_gradients, silu_attention, inputs, grad, torch.float32, heads=2, **keywords)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = attend()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for ours, theirs in zip(attend(), alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_golden_buckets():
    seconds = torch.tensor([0, 1, 2, 60, 3600, 86_400, 604_800, 31_536_000])
    each_alone = torch.arange(len(seconds) + 1)
    expected = torch.tensor([0, 0, 2, 13, 27, 37, 44, 57], dtype=torch.uint8)
    for distance in (seconds, -seconds):
        for form in (time_buckets, time_buckets_plainly):
            assert torch.equal(form(torch.zeros_like(seconds), distance * 1000, each_alone), expected)


def test_golden_attention():
    q = torch.tensor([[1.0, 0], [0.5, -1], [2, 1]])
    k = torch.tensor([[0.2, 0.1], [1, -0.5], [0.3, 0.7]])
    v = torch.tensor([[1.0, 2], [0, 1], [-1, 0.5]])
    expected = torch.tensor([[0.027492, 0.054983], [0, 0.182765], [-0.177589, 0.589903]])
    for form in (silu_attention, silu_attention_plainly):
        torch.testing.assert_close(
            form(q, k, v, torch.tensor([0, 3]), 3, heads=1, normaliser=4.0), expected, atol=1e-6, rtol=0
        )


def test_buckets_are_those_of_the_formula_about_every_edge():
    edges = np.exp(0.301 * np.arange(117)) * 1000
    near = np.concatenate([(edges + d).astype(np.int64) for d in (-1001, -1000, -999, -2, -1, 0, 1, 2)])
    asked = torch.tensor(np.concatenate([near[near > 0], [0, 999, 1000, 2**61]]))
    alone = torch.arange(len(asked) + 1)
    happened = torch.zeros_like(asked)
    assert torch.equal(time_buckets(happened, asked, alone), time_buckets_plainly(happened, asked, alone))


def test_buckets_are_of_the_next_time_less_the_time_whatever_their_order():
    times = torch.tensor([5000, 1_000_000, 0, 70_000])
    asked = torch.tensor([1_000_000, 0, 70_000, 71_000])
    offsets = torch.tensor([0, 3, 3, 4])
    expected = [int(np.log(max(1.0, abs(d))) / 0.301) for d in (995, -5, -1000, 65, -930, 70, 1)]
    assert time_buckets(times, asked, offsets).tolist() == expected
    happened, following = times_of(LENGTHS, seed=1)
    order = torch.randperm(len(happened))
    starts = offsets_of(LENGTHS)
    shuffled = happened[order], following[order], starts
    assert torch.equal(time_buckets(*shuffled), time_buckets_plainly(*shuffled))


def test_a_bias_by_time_and_buckets_come_together():
    (q, k, v), _, keywords = batch((3,), 4, 4, biased=False)
    for form in (silu_attention, silu_attention_plainly):
        with pytest.raises(ValueError, match="needs buckets"):
            form(q, k, v, heads=1, time_bias=torch.zeros(N_BUCKETS), **keywords)
        with pytest.raises(ValueError, match="129 numbers"):
            form(q, k, v, heads=1, time_bias=torch.zeros(5), buckets=torch.zeros(6, dtype=torch.uint8), **keywords)
