import functools
from itertools import pairwise

import numpy as np
import pytest
import torch

from nextsession.nn.ops import attention_kernels, work
from nextsession.nn.ops.attention import softmax_attention, softmax_attention_fused, softmax_attention_plainly

LENGTHS = (5, 0, 1, 17, 53, 100, 7, 0)


def batch(lengths, across, seed=0, kind=torch.float32):
    """q, k, v and a gradient of the output of rows of these lengths, and where rows begin."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    return [torch.randn(sum(lengths), across, generator=generator, dtype=kind) for _ in range(4)], offsets


def with_gradients(form, inputs, grad, kind, **keywords):
    """The output, and the gradients to the inputs (q, k, v and perhaps a bias), in another type."""
    inputs = [x.to(kind).requires_grad_() for x in inputs]
    bias = inputs[3] if len(inputs) > 3 else None
    out = form(*inputs[:3], bias=bias, **keywords)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(kind))]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("biases", [0, 1, 2])
@pytest.mark.parametrize("width", [25, 32, 50, 64])
def test_the_compiled_form_equals_the_plain_one_in_float64_in_value_and_gradients(causal, biases, width):
    (*inputs, grad), offsets = batch(LENGTHS, 2 * width)
    if biases:
        inputs.append(torch.randn(biases, 2 * 103 - 1))
    keywords = {"offsets": offsets, "longest": 100, "heads": 2, "causal": causal}
    fast = with_gradients(softmax_attention, inputs, grad, torch.float32, **keywords)
    plain = with_gradients(softmax_attention_plainly, inputs, grad, torch.float64, **keywords)
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("lengths", [(0,), (1,), (6,), (7,), (48,), (49,), (16, 17), (97, 1), (0, 0, 3)])
def test_rows_about_the_edges_of_tiles_and_blocks_are_attended_in(lengths):
    (*inputs, grad), offsets = batch(lengths, 10)
    for causal in (True, False):
        keywords = {"offsets": offsets, "longest": max(lengths), "heads": 2, "causal": causal}
        fast = with_gradients(softmax_attention, inputs, grad, torch.float32, **keywords)
        plain = with_gradients(softmax_attention_plainly, inputs, grad, torch.float64, **keywords)
        for ours, theirs in zip(fast, plain, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_the_plain_form_has_the_gradients_of_its_values(causal):
    (*inputs, _), offsets = batch((3, 0, 1, 4), 4, kind=torch.float64)
    bias = torch.randn(2, 9, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (*inputs, bias)]

    def attend(q, k, v, bias):
        return softmax_attention_plainly(q, k, v, offsets, 4, heads=2, causal=causal, bias=bias)

    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_the_form_for_gpus_equals_the_plain_one(causal, biased):
    (*inputs, grad), offsets = batch(LENGTHS, 12, kind=torch.float64)
    if biased:
        inputs.append(torch.randn(3, 199))
    keywords = {"offsets": offsets, "longest": 100, "heads": 3, "causal": causal}
    fused = with_gradients(softmax_attention_fused, inputs, grad, torch.float64, **keywords)
    plain = with_gradients(softmax_attention_plainly, inputs, grad, torch.float64, **keywords)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_attention_by_hand():
    q = torch.tensor([[1.0], [2.0]])
    v = torch.tensor([[3.0], [5.0]])
    share = 1 / (1 + np.exp(2 * (1 - 2) * 0.5))  # of the second token, for itself
    expected = torch.tensor([[3.0], [3 + 2 * share]])
    for form in (softmax_attention, softmax_attention_plainly):
        out = form(q, q, v, torch.tensor([0, 2]), 2, heads=1, causal=True, scale=0.5)
        torch.testing.assert_close(out, expected, check_dtype=False)


def test_a_bias_that_grows_with_nearness_makes_each_token_see_itself():
    (q, k, v, _), offsets = batch((9,), 4)
    bias = 1000.0 * torch.cat([torch.arange(9), torch.arange(7, -1, -1)])[None]
    out = softmax_attention(q, k, v, offsets, 9, heads=1, causal=False, bias=bias)
    torch.testing.assert_close(out, v)


def test_a_row_alone_has_the_result_of_a_row_in_company():
    (q, k, v, _), offsets = batch(LENGTHS, 32)
    together = softmax_attention(q, k, v, offsets, 100, heads=2, causal=True)
    for start, stop in pairwise(offsets.tolist()):
        row = slice(start, stop)
        alone = softmax_attention(
            q[row], k[row], v[row], torch.tensor([0, stop - start]), stop - start, heads=2, causal=True
        )
        torch.testing.assert_close(together[row], alone, rtol=1e-6, atol=1e-6)


def test_a_causal_token_sees_nothing_later_and_no_other_row():
    (q, k, v, _), offsets = batch((20, 30), 8)
    attend = functools.partial(softmax_attention, offsets=offsets, longest=30, heads=1, causal=True)
    before = attend(q, k, v)
    k[12], v[12] = 50.0, -50.0
    after = attend(q, k, v)
    changed = (before != after).any(1)
    assert not changed[:12].any()
    assert not changed[20:].any()
    assert changed[12]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", [softmax_attention, softmax_attention_plainly])
def test_empty_rows_rows_of_one_and_huge_scores_stay_finite(form, kind):
    (q, k, v, grad), offsets = batch((0, 1, 12, 0), 8)
    outcome = with_gradients(form, [100 * q, 100 * k, v], grad, kind, offsets=offsets, longest=12, heads=1, causal=True)
    assert all(bool(x.isfinite().all()) for x in outcome)
    torch.testing.assert_close(outcome[0][0], v[0].to(kind))


def test_bfloat16_is_near_float32():
    (q, k, v, _), offsets = batch(LENGTHS, 16)
    attend = functools.partial(softmax_attention, offsets=offsets, longest=100, heads=2, causal=True)
    torch.testing.assert_close(
        attend(q.bfloat16(), k.bfloat16(), v.bfloat16()).float(), attend(q, k, v), atol=0.05, rtol=0
    )


def test_nan_stays_in_its_row():
    (q, k, v, _), offsets = batch((20, 30), 8)
    v[3] = torch.nan
    out = softmax_attention(q, k, v, offsets, 30, heads=1, causal=True)
    assert out[3:20].isnan().all()
    assert not out[20:].isnan().any()
    q[0] = torch.nan
    assert softmax_attention(q, k, v, offsets, 30, heads=1, causal=True)[0].isnan().all()


def dropped_plainly(q, k, v, offsets, longest, seed, p, heads):
    """Attention whose weights are dropped where the kernels drop them, row after row, by hand."""
    shape = attention_kernels.Shape(heads, 0, True, np.float32(0), 0, 0, work.kept_above(p)[0], np.float32(0), seed)
    tokens, rows = len(q), []
    for first, end in pairwise(offsets.tolist()):
        heads_out = []
        for head in range(heads):
            a, b, c = (x[first:end].view(end - first, heads, -1)[:, head] for x in (q, k, v))
            scores = a @ b.T / a.shape[1] ** 0.5
            weights = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
            places = range(first, end)
            stays = [[attention_kernels.stays(shape, tokens, head, i, j) for j in places] for i in places]
            heads_out.append(weights * torch.tensor(stays).view_as(weights) / (1 - p) @ c)
        rows.append(torch.cat(heads_out, 1))
    return torch.cat(rows)


def test_dropout_of_weights_has_one_mask_forwards_and_backwards(monkeypatch):
    lengths = (3, 21, 1)
    (*inputs, grad), offsets = batch(lengths, 12)
    monkeypatch.setattr("nextsession.nn.ops.attention.seed", lambda: 77)
    keywords = {"offsets": offsets, "longest": 21, "heads": 2}
    fast = with_gradients(softmax_attention, inputs, grad, torch.float32, causal=True, dropout=0.3, **keywords)
    plain = functools.partial(dropped_plainly, seed=77, p=0.3)
    slow = with_gradients(lambda q, k, v, bias, **rest: plain(q, k, v, **rest), inputs, grad, torch.float64, **keywords)
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_dropout_drops_the_right_share_of_weights_and_keeps_their_sum_in_the_mean():
    (q, k, _, _), offsets = batch((200,) * 20, 8)
    values = torch.ones(4000, 8)
    torch.manual_seed(3)
    sums = softmax_attention(q, k, values, offsets, 200, heads=4, causal=False, dropout=0.25)
    assert abs(float(sums.mean()) - 1) < 0.01
    again = softmax_attention(q, k, values, offsets, 200, heads=4, causal=False, dropout=0.25)
    assert not torch.equal(sums, again)
    torch.manual_seed(3)
    assert torch.equal(sums, softmax_attention(q, k, values, offsets, 200, heads=4, causal=False, dropout=0.25))
    assert not torch.equal(sums[:, 0], sums[:, 2])  # heads draw for themselves


def test_threads_share_the_rows(monkeypatch):
    monkeypatch.setattr(work, "SMALL", 0)
    (*inputs, grad), offsets = batch(LENGTHS, 16)
    inputs.append(torch.randn(1, 199))
    attend = functools.partial(
        with_gradients,
        softmax_attention,
        inputs,
        grad,
        torch.float32,
        offsets=offsets,
        longest=100,
        heads=2,
        causal=True,
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = attend()
    for threads in (2, 5, 20):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for ours, theirs in zip(attend(), alone, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("width", [4, 5])
def test_a_bias_table_must_fit(width):
    (q, k, v, _), offsets = batch((4,), 4)
    for form in (softmax_attention, softmax_attention_plainly):
        with pytest.raises(ValueError, match="odd width of at least 7"):
            form(q, k, v, offsets, 4, heads=1, causal=True, bias=torch.zeros(1, width))
