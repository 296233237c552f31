"""Taobao UserBehavior: page views, carts, favourites and purchases, without a line of heads."""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, LogFormat

SET = DataSet(
    name="taobao",
    title="Taobao UserBehavior",
    about=(
        "100,150,807 events (pv, cart, fav, buy) of 987,994 people on 4,162,024 items, 25 November to 3 December "
        "2017. Sessions are cut at silences of 30 minutes. Every event is wanted; kinds are actions."
    ),
    homepage="https://tianchi.aliyun.com/dataset/649",
    licence="CC BY-NC-SA 4.0: attribution, no commercial use, share alike",
    citation=(
        "Han Zhu, Xiang Li, Pengye Zhang et al. Learning Tree-based Deep Model for Recommender Systems. KDD 2018. "
        "https://doi.org/10.1145/3219819.3219826"
    ),
    layouts=tuple(
        Layout(
            files=(f"UserBehavior.csv{gz}",),
            form=LogFormat(
                kind="csv",
                delimiter=",",
                header=("user_id", "item_id", "category_id", "behavior", "timestamp"),
                columns=Columns(action="behavior"),
                time_unit="s",
            ),
        )
        for gz in ("", ".gz")
    ),
    folders=("UserBehavior",),
    by_hand="download it from Tianchi (an account is needed) and unpack UserBehavior.csv.",
)
