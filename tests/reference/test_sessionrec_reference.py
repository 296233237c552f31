"""SessionRec against a plain implementation of the paper: padded, one session after another, PyTorch's own parts."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextsession.answering import Facts
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.models.sessionrec import SessionRec
from nextsession.nn.batches import Rows
from nextsession.nn.jagged import Batch
from nextsession.nn.negatives import ItemStatistics
from nextsession.nn.next_session import NextSession
from nextsession.reading import kept
from nextsession.slices import whole_sessions
from nextsession.testing.subjects import training_log

DIM, LAYERS, HEADS, MOST = 8, 2, 2, 12


class Plain:
    """The weights of ours by name, and the paper's formulas."""

    def __init__(self, network: NextSession, across: str) -> None:
        self.w, self.across = dict(network.named_parameters()), across

    def session(self, items: list[int], labels: list[int]) -> Tensor:
        """Eq. 3-5: id and label beside each other, mixed, and their mean."""
        w = self.w
        events = []
        for item, label in zip(items, labels, strict=True):
            both = torch.cat([w["inputs.items.weight"][item], w["inputs.labels.weight"][label]])
            mixed = F.linear(both, w["inputs.features.mix.0.weight"], w["inputs.features.mix.0.bias"])
            events.append(
                F.layer_norm(mixed, (DIM,), w["inputs.features.mix.1.weight"], w["inputs.features.mix.1.bias"])
            )
        return torch.stack(events).mean(0)

    def states(self, tokens: Tensor, times: list[int]) -> Tensor:
        """Eq. 6 over a padded batch of one row: `tokens` `(L, D)`, `times` of them and of the question (ms)."""
        if self.across == "gru":
            unit = nn.GRU(DIM, DIM, LAYERS)
            unit.load_state_dict({k.removeprefix("across.unit."): v for k, v in self.w.items() if "across.unit." in k})
            return unit(tokens[:, None])[0][:, 0]
        x = tokens + self.w["places"][: len(tokens)]
        for layer in range(LAYERS):
            w = {k.split(".", 3)[3]: v for k, v in self.w.items() if k.startswith(f"across.blocks.{layer}.")}
            x = self.transformer(x, w) if self.across == "transformer" else self.hstu(x, times, w)
        if self.across == "transformer":
            x = F.layer_norm(x, (DIM,), self.w["across.norm.weight"], self.w["across.norm.bias"], 1e-8)
        return x

    def transformer(self, x: Tensor, w: dict[str, Tensor]) -> Tensor:
        """Kang and McAuley 2018, by PyTorch's attention."""
        q = F.layer_norm(x, (DIM,), w["attention_norm.weight"], w["attention_norm.bias"], 1e-8)
        mixed, _ = F.multi_head_attention_forward(
            q[:, None], x[:, None], x[:, None], DIM, HEADS,
            torch.cat([w["of_query.weight"], w["of_key_value.weight"]]),
            torch.cat([w["of_query.bias"], w["of_key_value.bias"]]),
            None, None, False, 0.0, w["project.weight"], w["project.bias"],
            attn_mask=torch.ones(len(x), len(x), dtype=torch.bool).triu(1),
        )  # fmt: skip
        z = F.layer_norm(q + mixed[:, 0], (DIM,), w["ffn_norm.weight"], w["ffn_norm.bias"], 1e-8)
        inner = F.relu(F.linear(z, w["widen.weight"], w["widen.bias"]))
        return z + F.linear(inner, w["narrow.weight"], w["narrow.bias"])

    def hstu(self, x: Tensor, times: list[int], w: dict[str, Tensor]) -> Tensor:
        """Zhai et al. 2024, with sums divided by how many sessions there are."""
        n, width = len(x), DIM // HEADS
        u, v, q, k = F.silu(F.layer_norm(x, (DIM,), eps=1e-6) @ w["of_input.weight"].T).split(DIM, -1)
        q, k, v = (t.view(n, HEADS, width).transpose(0, 1) for t in (q, k, v))
        bias = torch.zeros(n, n)
        for i in range(n):
            for j in range(i + 1):
                seconds = max(1.0, (times[i + 1] - times[j]) / 1000)
                bias[i, j] = w["by_distance"][MOST - 1 + j - i] + w["by_time"][int(math.log(seconds) / 0.301)]
        scores = F.silu(q @ k.transpose(1, 2) + bias).tril() / torch.arange(1, n + 1)[:, None]
        attended = F.layer_norm((scores @ v).transpose(0, 1).reshape(n, DIM), (DIM,), eps=1e-6)
        return x + F.linear(u * attended, w["project.weight"], w["project.bias"])


def a_log() -> SessionLog:
    log = training_log(users=12)
    return log.recode(Vocabulary(log.vocabulary.ids))


@pytest.mark.parametrize("across", ["hstu", "transformer", "gru"])
def test_scores_and_losses_are_those_of_the_plain_implementation(across: str) -> None:
    log, alpha = a_log(), 0.2
    model = SessionRec(
        dim=DIM, layers=LAYERS, heads=HEADS, across=across, max_length=MOST, open="never", dropout=0.0, alpha=alpha,
        ignored_only=False,
    )  # fmt: skip
    model.timed_ = True
    log = kept(log, "wanted-sessions")
    torch.manual_seed(0)
    network = model._network(Facts(log.n_items))
    assert isinstance(network, NextSession)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.4)
    plain, table = Plain(network, across), network.inputs.items.weight
    batch = Rows(log, whole_sessions(log, wanted=10**6, events=10**6)).batch(np.arange(len(log)))
    retrieval, rank, last = [], [], []
    for u in range(len(log)):
        sessions = []
        for s in range(log.user_offsets[u], log.user_offsets[u + 1]):
            a, z = log.session_offsets[s], log.session_offsets[s + 1]
            sessions.append((log.items[a:z].tolist(), log.labels[a:z].tolist(), int(log.times[a])))
        if not sessions:
            continue
        tokens = torch.stack([plain.session(items, labels) for items, labels, _ in sessions])
        times = [t for _, _, t in sessions]
        states = plain.states(tokens, [*times, int(log.times[log.event_offsets[u + 1] - 1])])
        last.append((u, states[-1] @ table.T))
        for state, (items, labels, _) in zip(states, sessions[1:], strict=False):
            scores = state @ table.T
            wanted = {i for i, label in zip(items, labels, strict=True) if label}
            shown = sorted(set(items) - wanted)
            for item in sorted(wanted):
                rivals = [v for v in range(log.n_items) if v not in wanted]
                retrieval.append(F.softplus(scores[rivals].logsumexp(0) - scores[item]))
                if shown:
                    rank.append(F.softplus(scores[shown].logsumexp(0) - scores[item]))
    assert len(rank) > 3
    found = model._loss(network.examples(batch), network, ItemStatistics(torch.ones(log.n_items)))
    expected = torch.stack(retrieval).mean() + alpha * torch.stack(rank).mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    ours = torch.autograd.grad(found, [table, *network.inputs.features.mix.parameters()])
    theirs = torch.autograd.grad(expected, [table, *network.inputs.features.mix.parameters()])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    queries = network(Batch.of_log(log, log.last_times))
    for u, scores in last:
        torch.testing.assert_close(queries[u] @ table.T, scores, rtol=1e-4, atol=1e-4)
