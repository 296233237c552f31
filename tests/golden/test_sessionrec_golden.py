"""The losses of SessionRec (eq. 8-10) against values worked out by independent code, to all the digits that are known.

One session: what was wanted scores 2 and 0.5, what was ignored 1, what was drawn 0 and -1.
"""

import pytest
import torch

from nextsession.models.sessionrec import SessionRec
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.losses import SampledSoftmax
from nextsession.nn.moments import rank_loss
from nextsession.nn.negatives import ItemStatistics, Shown, Uniform
from nextsession.nn.networks import Examples, Head

WANTED, IGNORED = [2.0, 0.5], [1.0]
RETRIEVAL, RANK = [0.169846, 0.604131], [0.313262, 0.974077]
STATISTICS = ItemStatistics(torch.ones(5))


def head() -> Head:
    items = ItemEmbedding(5, 1)
    with torch.no_grad():
        items.weight.copy_(torch.tensor([*WANTED, *IGNORED, 0.0, -1.0])[:, None])
    return Head(items)


def session(positives=(0, 1)) -> Examples:
    return Examples(
        torch.ones(1, 1),
        torch.tensor(positives),
        of_query=torch.zeros(len(positives), dtype=torch.int64),
        users=torch.tensor([0]),
        shown=torch.tensor([2]),
        shown_of=torch.tensor([0]),
    )


@pytest.fixture
def drawn(monkeypatch):
    """Make `Uniform` draw the items that score 0 and -1, in every way it draws."""

    def draw(self, examples, head, items):
        return torch.tensor([3, 4]) if self.per == "batch" else torch.tensor([[3, 4]])

    monkeypatch.setattr(Uniform, "draw", draw)


@pytest.mark.parametrize("per", ["query", "row", "batch"])
def test_retrieval(drawn, per):
    """Eq. 8; with the other wanted item in the denominator it would be 0.342350 and 1.842350."""
    loss = SampledSoftmax(negatives=Uniform(n=2, per=per))
    assert [loss(session([i]), head(), STATISTICS).item() for i in (0, 1)] == pytest.approx(RETRIEVAL, abs=1e-6)
    assert loss(session(), head(), STATISTICS).item() == pytest.approx(0.386988, abs=1e-6)
    assert 2 * loss(session(), head(), STATISTICS).item() == pytest.approx(0.773977, abs=1e-6)


def test_ranking():
    """Eq. 9, in both forms."""
    loss = SampledSoftmax(negatives=Shown())
    assert [loss(session([i]), head(), STATISTICS).item() for i in (0, 1)] == pytest.approx(RANK, abs=1e-6)
    assert loss(session(), head(), STATISTICS).item() == pytest.approx(0.643669, abs=1e-6)

    def ranked(wanted, ignored=IGNORED):
        of = [torch.zeros(len(x), dtype=torch.int64) for x in (wanted, ignored)]
        return rank_loss(torch.tensor(wanted), of[0], torch.tensor(ignored), of[1]).item()

    assert [ranked([score]) for score in WANTED] == pytest.approx(RANK, abs=1e-6)
    assert ranked(WANTED) == pytest.approx(0.643669, abs=1e-6)
    assert ranked(WANTED, []) == 0


@pytest.mark.parametrize(("alpha", "total"), [(0.2, 0.515722), (0.0, 0.386988), (1.0, 0.386988 + 0.643669)])
def test_both(drawn, alpha, total):
    """Eq. 10, as the model adds it up; what nothing was shown beside counts for retrieval alone."""
    model = SessionRec(alpha=alpha, loss={"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 2}})
    network = torch.nn.Module()
    network.head = head()
    assert model._loss(session(), network, STATISTICS).item() == pytest.approx(total, abs=1e-6)
    plain = Examples(torch.ones(1, 1), torch.tensor([0, 1]), of_query=torch.tensor([0, 0]))
    assert model._loss(plain, network, STATISTICS).item() == pytest.approx(0.386988, abs=1e-6)
