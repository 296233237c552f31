"""RecTools (`pip install "rectools[torch]"`): SASRec, gSASRec, eSASRec, BERT4Rec and HSTU.

`fit` is called as its users call it; a Lightning callback reads the clock and `max_steps` ends the training.
"""

import logging
import tempfile
import warnings

import meter
import numpy as np
import pandas as pd
from meter import BATCH, LONGEST, MASKED, NEGATIVES, WIDTH, Task, parameters
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
NARROW = 50
"""Dimensions of HSTU, as it is published for ML-1M."""


class Clock(Callback):
    """Reads the clock after each step; RecTools copies the trainer, so the clock belongs to the class."""

    clock: meter.Meter

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """Count the events that are not padding."""
        inputs = int((batch["x"] != 0).sum())
        self.clock.step(inputs, inputs, outputs["loss"].item())


def trainer() -> Trainer:
    return Trainer(
        callbacks=[Clock()],
        max_steps=Clock.clock.warm_up + Clock.clock.steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tempfile.gettempdir(),
    )


def dataset(histories: meter.Histories) -> Dataset:
    """The log as RecTools reads it; the events of a user are a minute apart, for the file has no times."""
    lengths = np.diff(histories.offsets)
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], lengths)
    frame = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(histories)), lengths),
            Columns.Item: histories.items,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2020-01-01") + pd.to_timedelta(place, unit="min"),
        }
    )
    return Dataset.construct(frame)


def fitted(task: Task, kind: type, width: int, heads: int, loss: str = "softmax", **settings) -> dict:
    Clock.clock = task.meter
    model = kind(
        n_blocks=2,
        n_heads=heads,
        n_factors=width,
        session_max_len=LONGEST,
        batch_size=BATCH,
        loss=loss,
        get_trainer_func=trainer,
        **settings,
    )
    model.fit(dataset(task.histories))
    layers = model.torch_model.transformer_layers
    return {
        "parameters": parameters(model.torch_model),
        "layers": len(getattr(layers, "transformer_blocks", None) or layers.stu_blocks),
        "heads": heads,
        "width": width,
        "block": type(layers).__name__,
        "loss": loss if loss == "softmax" else f"{loss}, {settings['n_negatives']} negatives of each position",
    }


if __name__ == "__main__":
    sampled = {"n_negatives": NEGATIVES, "dropout_rate": 0.1}
    meter.run(
        {
            "sasrec-ce": lambda task: fitted(task, SASRecModel, WIDTH, 1, dropout_rate=0.1),
            "sasrec-sampled": lambda task: fitted(task, SASRecModel, WIDTH, 1, "sampled_softmax", **sampled),
            "sasrec-bce": lambda task: fitted(task, SASRecModel, WIDTH, 1, "BCE", dropout_rate=0.1, n_negatives=1),
            "gsasrec": lambda task: fitted(task, SASRecModel, WIDTH, 1, "gBCE", gbce_t=0.75, **sampled),
            "esasrec": lambda task: fitted(
                task, SASRecModel, WIDTH, 1, "sampled_softmax", transformer_layers_type=LiGRLayers, **sampled
            ),
            "bert4rec": lambda task: fitted(task, BERT4RecModel, WIDTH, 2, dropout_rate=0.1, mask_prob=MASKED),
            "hstu": lambda task: fitted(
                task, HSTUModel, NARROW, 1, relative_time_attention=False, lightning_module_kwargs={"logits_t": 0.05}
            ),
            "hstu-time": lambda task: fitted(task, HSTUModel, NARROW, 1, lightning_module_kwargs={"logits_t": 0.05}),
        },
        ("rectools", "pytorch-lightning"),
    )
