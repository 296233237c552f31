"""pmixer/SASRec.pytorch: SASRec with one negative a position and binary cross-entropy.

Its model and its sampler are imported; the loop makes the steps of its `main.py`.  The sampler runs in a thread of
this process instead of three processes of its own: its CPU time is part of the price.
"""

import queue
import sys
import threading
from types import SimpleNamespace

import meter
import numpy as np
import torch
from meter import BATCH, LONGEST, WIDTH, Task, parameters


def sasrec(task: Task) -> dict:
    sys.path.insert(0, str(task.sources / "SASRec.pytorch"))
    from model import SASRec
    from utils import sample_function

    users = dict(enumerate(task.histories.lists(), start=1))
    n_users, n_items = len(users), task.histories.n_items
    batches: queue.Queue = queue.Queue(maxsize=1)
    sampler = (users, n_users, n_items, BATCH, LONGEST, batches, 0)
    threading.Thread(target=sample_function, args=sampler, daemon=True).start()
    settings = SimpleNamespace(
        device="cpu", maxlen=LONGEST, hidden_units=WIDTH, num_blocks=2, num_heads=1, dropout_rate=0.2, norm_first=False
    )
    model = SASRec(n_users, n_items, settings)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.xavier_normal_(parameter.data)
    model.pos_emb.weight.data[0, :] = 0
    model.item_emb.weight.data[0, :] = 0
    model.train()
    loss_of = torch.nn.BCEWithLogitsLoss()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001, betas=(0.9, 0.98))
    while True:
        user, rows, positives, negatives = (np.array(part) for part in batches.get())
        of_positives, of_negatives = model(user, rows, positives, negatives)
        optimiser.zero_grad()
        valid = np.where(positives != 0)
        loss = loss_of(of_positives[valid], torch.ones(of_positives.shape)[valid])
        loss += loss_of(of_negatives[valid], torch.zeros(of_negatives.shape)[valid])
        loss.backward()
        optimiser.step()
        if task.meter.step(len(valid[0]), None, loss.item()):
            break
    return {
        "parameters": parameters(model),
        "layers": len(model.attention_layers),
        "heads": model.attention_layers[0].num_heads,
        "width": WIDTH,
        "loss": "binary cross-entropy, 1 negative of each position",
    }


if __name__ == "__main__":
    meter.run({"sasrec-bce": sasrec}, ())
