"""YooChoose (RecSys Challenge 2015, also RSC15): clicks of an online shop, sessions given, no users.

`yoochoose-clicks.dat` has no line of heads: session, ISO time, item, category.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, LogFormat, SessionRule

SET = DataSet(
    name="yoochoose",
    title="YooChoose clicks (RecSys Challenge 2015)",
    about=(
        "33,003,944 clicks in 9,249,729 sessions on 52,739 items of an online shop, April to September 2014. "
        "Visitors are not known: each session stands alone. Published figures leave out items of fewer than 5 "
        "clicks and sessions of one click (item_events 5, session_events 2)."
    ),
    homepage="https://recsys.acm.org/recsys15/challenge/",
    licence="CC BY-NC-ND 4.0: attribution, no commercial use, no derivatives",
    citation=(
        "David Ben-Shimon, Alexander Tsikinovsky, Michael Friedmann et al. RecSys Challenge 2015 and the YOOCHOOSE "
        "Dataset. RecSys 2015. https://doi.org/10.1145/2792838.2798723"
    ),
    layouts=tuple(
        Layout(
            files=(f"yoochoose-clicks.dat{gz}",),
            form=LogFormat(
                kind="csv",
                delimiter=",",
                header=("session", "time", "item", "category"),
                columns=Columns(user=None, item="item", time="time", session="session"),
                time_unit="iso",
            ),
            sessions=SessionRule(by="id"),
        )
        for gz in ("", ".gz")
    ),
    folders=("yoochoose-data", "rsc15"),
    by_hand="download it from Kaggle (chadgostopp/recsys-challenge-2015) and unpack yoochoose-clicks.dat.",
)
