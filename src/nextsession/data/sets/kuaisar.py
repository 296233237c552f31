"""KuaiSAR: recommendations of the short-video app Kuaishou, of people who also searched.

The time of a row is that of the delivery, and several videos are delivered at once: the rows of a
user with the same time are one request, hence one session.  Searches are not read.
"""

from pathlib import Path

import polars as pl

from nextsession.data.dataset import DataSet, Layout, item_feature
from nextsession.data.format import Columns, Labels, LogFormat, SessionRule
from nextsession.data.items import ItemTable
from nextsession.data.vocabulary import Vocabulary


def _categories(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read the first two levels of categories from `item_features.csv`."""
    levels = {"category": "first_level_category_name_en", "subcategory": "second_level_category_name_en"}
    table = pl.read_csv(folder / "item_features.csv", columns=["item_id", *levels.values()], infer_schema=False)
    return ItemTable({name: item_feature(vocabulary, table["item_id"], table[c]) for name, c in levels.items()})


SET = DataSet(
    name="kuaisar",
    title="KuaiSAR (Kuaishou search and recommendation)",
    about=(
        "Videos delivered to 25,877 people of Kuaishou in May and June 2023: one delivered request is a session, "
        "every video an event, wanted if clicked."
    ),
    homepage="https://kuaisar.github.io/",
    licence="CC BY-NC-SA 4.0: attribution, no commercial use, share alike",
    citation=(
        "Zhongxiang Sun, Zihua Si, Xiaoxue Zang et al. KuaiSAR: A Unified Search And Recommendation Dataset. "
        "CIKM 2023. https://doi.org/10.1145/3583780.3615123"
    ),
    layouts=tuple(
        Layout(
            files=(f"rec_inter.csv{gz}",),
            form=LogFormat(columns=Columns(label="click"), time_unit="ms", labels=Labels(at_least=1)),
            sessions=SessionRule(by="time"),
            items=_categories,
            item_files=("item_features.csv",),
        )
        for gz in ("", ".gz")
    ),
    folders=("KuaiSAR_final", "KuaiSAR_v2", "KuaiSAR", "KuaiSAR-S"),
    by_hand="follow the links at https://kuaisar.github.io/ and unpack the archive that holds rec_inter.csv.",
)
