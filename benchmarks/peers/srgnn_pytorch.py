"""CRIPAC-DIG/SR-GNN, pytorch_code: SR-GNN as its authors train it on Diginetica.

Its model and its batches are imported; the loop makes the steps of `train_test` without the test.
"""

import sys
from types import SimpleNamespace

import meter
import numpy as np
import torch
from meter import SESSION_BATCH, SESSION_WIDTH, Task, parameters


def srgnn(task: Task) -> dict:
    sys.path.insert(0, str(task.sources / "SR-GNN" / "pytorch_code"))
    from model import SessionGraph, forward
    from utils import Data

    settings = SimpleNamespace(
        batchSize=SESSION_BATCH,
        hiddenSize=SESSION_WIDTH,
        lr=0.001,
        lr_dc=0.1,
        lr_dc_step=3,
        l2=1e-5,
        step=1,
        nonhybrid=False,
    )
    data = Data(task.histories.prefixes(), shuffle=True)
    model = SessionGraph(settings, task.histories.n_items + 1)
    model.train()
    for rows in data.generate_batch(model.batch_size):
        model.optimizer.zero_grad()
        targets, scores = forward(model, rows, data)
        loss = model.loss_function(scores, torch.Tensor(targets).long() - 1)
        loss.backward()
        model.optimizer.step()
        if task.meter.step(len(rows), int(np.sum(data.mask[rows])), loss.item()):
            break
    return {
        "parameters": parameters(model),
        "layers": model.gnn.step,
        "width": model.hidden_size,
        "padded to": data.len_max,
        "loss": "cross-entropy over all items",
    }


if __name__ == "__main__":
    meter.run({"srgnn": srgnn}, ("networkx",))
