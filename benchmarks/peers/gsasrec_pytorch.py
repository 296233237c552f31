"""asash/gSASRec-pytorch: SASRec with the generalised binary cross-entropy and negatives of each position.

Its modules are imported; the loop makes the steps of its `train_gsasrec.py`, which trains on import.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import meter
import torch
from meter import BATCH, LONGEST, NEGATIVES, WIDTH, Task, parameters


def gsasrec(task: Task) -> dict:
    sys.path.insert(0, str((task.sources / "gSASRec-pytorch").resolve()))
    from dataset_utils import get_train_dataloader
    from gbce import gBCE
    from gsasrec import GSASRec

    n_items = task.histories.n_items
    model = GSASRec(n_items, sequence_length=LONGEST, embedding_dim=WIDTH, num_heads=1, num_blocks=2, dropout_rate=0.1)
    loss_of = gBCE(pool_size=n_items - 1, negatives=NEGATIVES, t=0.75)
    optimiser = torch.optim.Adam(model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        written(task, Path(folder))
        os.chdir(folder)
        loader = get_train_dataloader("ml1m", batch_size=BATCH, max_length=LONGEST, train_neg_per_positive=NEGATIVES)
    model.train()
    for rows, drawn in loader:
        labels = rows[:, 1:]
        state, _ = model(rows[:, :-1])
        candidates = torch.cat([labels.unsqueeze(-1), drawn[:, 1:, :]], dim=-1)
        vectors = model.item_embedding(candidates)
        valid = labels != n_items + 1
        mask = valid.float().unsqueeze(-1).repeat(1, 1, NEGATIVES + 1)
        scores = torch.einsum("bld,blnd->bln", state, vectors)
        truth = torch.zeros_like(scores)
        truth[:, :, 0] = 1
        loss = (loss_of(scores, truth) * mask).sum() / mask.sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        positions = int((rows[:, :-1] != n_items + 1).sum())
        if task.meter.step(positions, positions, loss.item()):
            break
    return {
        "parameters": parameters(model),
        "layers": len(model.transformer_blocks),
        "heads": model.num_heads,
        "width": model.embedding_dim,
        "loss": f"gBCE, {NEGATIVES} negatives of each position, t = 0.75, beta = {loss_of.beta:.4f}",
    }


def written(task: Task, folder: Path) -> None:
    """Write the files that its loader reads."""
    place = folder / "datasets" / "ml1m" / "train"
    place.mkdir(parents=True)
    (place / "input.txt").write_text("\n".join(" ".join(map(str, row)) for row in task.histories.lists()) + "\n")
    (place.parent / "dataset_stats.json").write_text(json.dumps({"num_items": task.histories.n_items}))


if __name__ == "__main__":
    meter.run({"gsasrec": gsasrec}, ())
