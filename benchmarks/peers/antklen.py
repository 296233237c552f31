"""antklen/sasrec-bert4rec-recsys23: SASRec+ (full softmax), SASRec with sampled losses, BERT4Rec, GRU.

Its `src` folder is imported as it is; the loader, the model and the Lightning module are put together as its
`run.py` does with `configs/*.yaml`, `dataset.max_length=200`, no workers and no evaluation.
"""

import sys
import tempfile
import warnings

import meter
import numpy as np
import pandas as pd
import pytorch_lightning as pl
from meter import BATCH, LONGEST, MASKED, WIDTH, Task, parameters
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore")


class Clock(pl.Callback):
    """Reads the clock after each step."""

    def __init__(self, clock: meter.Meter):
        self.clock = clock

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """Count the events that are not padding."""
        inputs = int((batch["input_ids"] != 0).sum())
        self.clock.step(inputs, inputs, outputs["loss"].item())


def fit(task: Task, module, dataset) -> None:
    from datasets import PaddingCollateFn

    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0, collate_fn=PaddingCollateFn())
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            callbacks=[Clock(task.meter)],
            max_steps=task.meter.warm_up + task.meter.steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, loader)


def frame(task: Task, shift: int = 0) -> pd.DataFrame:
    histories = task.histories
    lengths = np.diff(histories.offsets)
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(len(histories)), lengths),
            "item_id": histories.items.astype(np.int64) + shift,
            "time_idx": np.concatenate([np.arange(length) for length in lengths]),
        }
    )


def sasrec(task: Task, loss: str, negatives: int | None, each: bool) -> dict:
    sys.path.insert(0, str(task.sources / "sasrec-bert4rec-recsys23" / "src"))
    from datasets import CausalLMDataset
    from models import SASRec
    from modules import SeqRec, SeqRecWithSampling

    model = SASRec(
        item_num=task.histories.n_items,
        maxlen=LONGEST,
        hidden_units=WIDTH,
        num_blocks=2,
        num_heads=1,
        dropout_rate=0.1,
        add_head=negatives is None,
    )
    module = SeqRec(model) if negatives is None else SeqRecWithSampling(model, loss=loss)
    dataset = CausalLMDataset(frame(task), max_length=LONGEST, num_negatives=negatives, full_negative_sampling=each)
    fit(task, module, dataset)
    return {
        "parameters": parameters(model),
        "layers": len(model.attention_layers),
        "heads": model.attention_layers[0].num_heads,
        "width": model.hidden_units,
        "loss": "cross-entropy over all items" if negatives is None else f"{loss}, {negatives} negatives",
    }


def bert4rec(task: Task) -> dict:
    sys.path.insert(0, str(task.sources / "sasrec-bert4rec-recsys23" / "src"))
    from datasets import MaskedLMDataset
    from models import BERT4Rec
    from modules import SeqRec

    config = {
        "vocab_size": 2,
        "max_position_embeddings": LONGEST,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 4 * WIDTH,
    }
    model = BERT4Rec(vocab_size=task.histories.n_items + 2, bert_config=config)
    fit(task, SeqRec(model), MaskedLMDataset(frame(task, shift=1), max_length=LONGEST, mlm_probability=MASKED))
    return {
        "parameters": parameters(model),
        "layers": len(model.transformer_model.encoder.layer),
        "heads": config["num_attention_heads"],
        "width": WIDTH,
        "loss": "cross-entropy over all items at the masked events; logits of every event are computed",
    }


def gru(task: Task) -> dict:
    sys.path.insert(0, str(task.sources / "sasrec-bert4rec-recsys23" / "src"))
    from datasets import CausalLMDataset
    from models import RNN
    from modules import SeqRec

    config = {"input_size": WIDTH, "hidden_size": WIDTH, "num_layers": 1, "dropout": 0.1}
    model = RNN(vocab_size=task.histories.n_items + 1, rnn_config=config)
    fit(task, SeqRec(model), CausalLMDataset(frame(task), max_length=LONGEST))
    return {
        "parameters": parameters(model),
        "layers": model.rnn.num_layers,
        "width": model.rnn.hidden_size,
        "loss": "cross-entropy over all items",
    }


if __name__ == "__main__":
    meter.run(
        {
            "sasrec-ce": lambda task: sasrec(task, "cross_entropy", None, False),
            "sasrec-3000": lambda task: sasrec(task, "cross_entropy", 3000, False),
            "sasrec-bce": lambda task: sasrec(task, "bce", 1, True),
            "bert4rec": bert4rec,
            "gru": gru,
        },
        ("pytorch-lightning", "transformers"),
    )
