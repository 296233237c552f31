"""A last week of RSC15 with categories and a ready split; *not* the usual 1/64 of published tables."""

from nextsession.data.dataset import DataSet
from nextsession.data.sets._sessionrec import layout

SET = DataSet(
    name="rsc15-64",
    title="RSC15 (YooChoose), last week",
    about=(
        "99,943 clicks in 24,761 sessions to learn from; 7,299 clicks in 1,703 sessions to ask, each but the first of "
        "its session. Not comparable with published figures for 1/64 of RSC15."
    ),
    homepage="https://recsys.acm.org/recsys15/challenge/",
    licence="CC BY-NC-ND 4.0 (YooChoose): attribution, no commercial use, no derivatives",
    citation=(
        "David Ben-Shimon, Alexander Tsikinovsky, Michael Friedmann et al. RecSys Challenge 2015 and the YOOCHOOSE "
        "Dataset. RecSys 2015. https://doi.org/10.1145/2792838.2798723"
    ),
    layouts=tuple(layout(f"rec15_train_full.txt{gz}", f"rec15_test.txt{gz}") for gz in (".gz", "")),
    folders=("rsc15_64",),
    by_hand="put rec15_train_full.txt and rec15_test.txt (SessionId, ItemId, CatId, Time; also .gz) side by side.",
)
