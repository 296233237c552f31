"""RecBole (`pip install recbole`): SASRec, BERT4Rec, GRU4Rec on long histories; SR-GNN, NARM, STAMP, Caser on sessions.

Its own loader, model and `Trainer._train_epoch` run; the loss function is wrapped to read the clock.  RecBole makes an
example of every prefix (its data augmentation), so a position is an example, whose inputs are the whole prefix.
"""

import contextlib
import tempfile
import warnings
from pathlib import Path

import meter
from meter import BATCH, LONGEST, MASKED, SESSION_BATCH, SESSION_WIDTH, WIDTH, EnoughError, Task, parameters

warnings.filterwarnings("ignore")
USERS = 600
"""Users of the long histories that are kept: every prefix of theirs is a row of 200 numbers in memory."""
SESSION_LONGEST = 50
"""Events of a session that RecBole reads unless told otherwise."""

SELF_ATTENTION = {"hidden_size": WIDTH, "n_layers": 2, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1}
LONG = {
    "SASRec": {**SELF_ATTENTION, "n_heads": 1, "inner_size": WIDTH, "hidden_act": "relu"},
    "BERT4Rec": {**SELF_ATTENTION, "n_heads": 2, "inner_size": 4 * WIDTH, "mask_ratio": MASKED},
    "GRU4Rec": {"embedding_size": WIDTH, "hidden_size": WIDTH, "num_layers": 1, "dropout_prob": 0.1},
}
SHORT = {
    "SRGNN": {"embedding_size": SESSION_WIDTH, "step": 1},
    "NARM": {"embedding_size": SESSION_WIDTH, "hidden_size": SESSION_WIDTH, "n_layers": 1},
    "STAMP": {"embedding_size": SESSION_WIDTH},
    "Caser": {"embedding_size": 50, "nv": 4, "nh": 16, "dropout_prob": 0.5, "MAX_ITEM_LIST_LENGTH": 5},
    "GRU4Rec": {"embedding_size": SESSION_WIDTH, "hidden_size": SESSION_WIDTH, "num_layers": 1},
}


def written(histories: meter.Histories, folder: Path) -> None:
    """Write the atomic files; two more events a user stand for the held-out ones that the split takes away."""
    place = folder / "log"
    place.mkdir()
    with (place / "log.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, row in enumerate(histories.lists()):
            file.writelines(f"{user}\t{item}\t{at}\n" for at, item in enumerate([*row, row[-1], row[-1]]))
    with (place / "log.item").open("w") as file:
        file.write("item_id:token\n")
        file.writelines(f"{item}\n" for item in range(1, histories.n_items + 1))


def trained(task: Task, name: str, histories: meter.Histories, settings: dict) -> dict:
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    with tempfile.TemporaryDirectory() as folder:
        written(histories, Path(folder))
        config = Config(
            model=name,
            dataset="log",
            config_dict={
                "data_path": folder,
                "checkpoint_dir": folder,
                "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
                "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
                "loss_type": "CE",
                "train_neg_sample_args": None,
                "use_gpu": False,
                "worker": 0,
                "show_progress": False,
                "state": "ERROR",
                **settings,
            },
        )
        init_seed(0, True)
        data = create_dataset(config)
        train, _, _ = data_preparation(config, data)
    model = get_model(config["model"])(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    last: list[tuple[int, int, float]] = []

    def loss_of(batch):
        if last and task.meter.step(*last.pop()):
            raise EnoughError
        loss = model.calculate_loss(batch)
        length = batch[model.ITEM_SEQ_LEN]
        last.append((len(length), int(length.sum()), float(loss)))
        return loss

    with contextlib.suppress(EnoughError):
        trainer._train_epoch(train, 0, loss_func=loss_of)
    if data.item_num != histories.n_items + 1:
        raise SystemExit(f"{data.item_num - 1} items where the file has {histories.n_items}")
    return {
        "parameters": parameters(model),
        "layers": config["n_layers"] or config["num_layers"] or config["step"],
        "heads": config["n_heads"],
        "width": config["hidden_size"] or config["embedding_size"],
        "padded to": config["MAX_ITEM_LIST_LENGTH"],
        "examples": len(train.dataset),
        "loss": "cross-entropy over all items",
    }


def long(name: str):
    settings = {"MAX_ITEM_LIST_LENGTH": LONGEST, "train_batch_size": BATCH, **LONG[name]}
    return lambda task: trained(task, name, task.histories.some(USERS), settings)


def short(name: str):
    settings = {"MAX_ITEM_LIST_LENGTH": SESSION_LONGEST, "train_batch_size": SESSION_BATCH, **SHORT[name]}
    return lambda task: trained(task, name, task.histories, settings)


if __name__ == "__main__":
    meter.run(
        {f"{name.lower()}-long": long(name) for name in LONG} | {name.lower(): short(name) for name in SHORT},
        ("recbole", "pandas"),
    )
