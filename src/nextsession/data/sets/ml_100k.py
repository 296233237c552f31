"""MovieLens 100K, as GroupLens gives it and as RecBole's atomic files.

Ratings are feedback in both directions: 4 and 5 stars are wanted, the others shown and ignored.
Sessions are cut at silences of 30 minutes.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, LogFormat
from nextsession.data.sets._movielens import CITATION, LICENCE, LIKED, recbole_items, u_item

SET = DataSet(
    name="ml-100k",
    title="MovieLens 100K",
    about="100,000 ratings of 1,682 films by 943 people, 1997 to 1998. Wanted: at least 4 stars.",
    homepage="https://grouplens.org/datasets/movielens/100k/",
    licence=LICENCE,
    citation=CITATION,
    layouts=(
        Layout(
            files=("u.data",),
            form=LogFormat(
                kind="csv",
                delimiter="\t",
                header=("user_id", "item_id", "rating", "timestamp"),
                columns=Columns(label="rating"),
                time_unit="s",
                labels=LIKED,
            ),
            items=u_item,
            item_files=("u.item", "u.genre"),
        ),
        Layout(
            files=("ml-100k.inter",),
            form=LogFormat(
                kind="csv",
                delimiter="\t",
                columns=Columns(
                    user="user_id:token", item="item_id:token", time="timestamp:float", label="rating:float"
                ),
                time_unit="s",
                labels=LIKED,
            ),
            items=recbole_items,
            item_files=("ml-100k.item",),
        ),
    ),
    addresses=(
        Address(
            "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
            4_924_029,
            "md5:0e33842e24a9c977be4e0107933c0723",
        ),
    ),
)
