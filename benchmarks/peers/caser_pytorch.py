"""graytowne/caser_pytorch: Caser as its authors train it on ML-1M (L = 5, T = 3, 3 negatives a window).

Its model and its sampler of negatives are imported; the loop makes the steps of `Recommender.fit`, which has no end
before an epoch.  A position is a window: the targets of the windows after it overlap with its own.
"""

import sys
from types import SimpleNamespace

import meter
import numpy as np
import torch
from meter import Task, parameters
from scipy import sparse

READ, PREDICTED, NEGATIVES, BATCH = 5, 3, 3, 512


def caser(task: Task) -> dict:
    sys.path.insert(0, str(task.sources / "caser_pytorch"))
    from caser import Caser
    from train_caser import Recommender
    from utils import minibatch, shuffle

    users, windows = windows_of(task.histories)
    settings = SimpleNamespace(L=READ, d=50, nv=4, nh=16, drop=0.5, ac_conv="relu", ac_fc="relu")
    model = Caser(len(task.histories), task.histories.n_items + 1, settings)
    optimiser = torch.optim.Adam(model.parameters(), weight_decay=1e-6, lr=1e-3)
    recommender = Recommender(neg_samples=NEGATIVES)
    recommender._generate_negative_samples(users[:2], interactions(task.histories), 1)  # makes the candidates once
    users, windows = shuffle(users.reshape(-1, 1), windows)
    users, windows = (part[: (task.meter.steps + 1) * BATCH] for part in (users, windows))
    model.train()
    task.meter.warm_up = 1
    parts = (slice(0, BATCH), slice(BATCH, None))  # the negatives of an epoch are drawn before its steps
    for part in parts:
        drawn = recommender._generate_negative_samples(users[part], None, n=NEGATIVES)
        tensors = (torch.from_numpy(rows) for rows in (windows[part], users[part], drawn))
        for rows, user, negatives in minibatch(*tensors, batch_size=BATCH):
            scores = model(rows[:, :READ], user, torch.cat((rows[:, READ:], negatives), 1))
            of_targets, of_negatives = torch.split(scores, [PREDICTED, NEGATIVES], dim=1)
            optimiser.zero_grad()
            loss = -torch.mean(torch.log(torch.sigmoid(of_targets)))
            loss = loss - torch.mean(torch.log(1 - torch.sigmoid(of_negatives)))
            loss.backward()
            optimiser.step()
            task.meter.step(len(rows), len(rows), loss.item())
    return {
        "parameters": parameters(model),
        "width": settings.d,
        "loss": f"binary cross-entropy, {PREDICTED} targets and {NEGATIVES} negatives of each window",
    }


def windows_of(histories: meter.Histories) -> tuple[np.ndarray, np.ndarray]:
    """Return the user (W,) and the events (W, L + T) of every window."""
    size = READ + PREDICTED
    rows = [row for row in np.split(histories.items.astype(np.int64), histories.offsets[1:-1]) if len(row) >= size]
    kept = np.flatnonzero(np.diff(histories.offsets) >= size)
    users = np.repeat(kept, [len(row) - size + 1 for row in rows])
    return users, np.concatenate([np.lib.stride_tricks.sliding_window_view(row, size) for row in rows])


def interactions(histories: meter.Histories) -> SimpleNamespace:
    """What the sampler asks of its class of interactions."""
    matrix = sparse.csr_matrix(
        (np.ones(len(histories.items)), histories.items, histories.offsets),
        shape=(len(histories), histories.n_items + 1),
    )
    return SimpleNamespace(num_items=histories.n_items + 1, tocsr=lambda: matrix)


if __name__ == "__main__":
    meter.run({"caser": caser}, ("scipy",))
