"""The first 100,000 clicks of RSC15, split as in the examples of session-rec, with ready-made questions."""

from nextsession.data.dataset import DataSet
from nextsession.data.fetch import Address
from nextsession.data.sets._sessionrec import layout

_AT = "https://raw.githubusercontent.com/rn5l/session-rec/02cf50705942f13a7f7ad77b0816403fb88df0f5/data/rsc15/prepared/"

SET = DataSet(
    name="rsc15-100k",
    title="RSC15 (YooChoose), first 100,000 clicks as in session-rec",
    about=(
        "70,278 clicks in 17,794 sessions to learn from; 13,568 clicks in 3,416 sessions to ask, each but the first "
        "of its session. Small: for tests and comparisons with session-rec."
    ),
    homepage="https://github.com/rn5l/session-rec",
    licence="CC BY-NC-ND 4.0 (YooChoose): attribution, no commercial use, no derivatives",
    citation=(
        "Malte Ludewig and Dietmar Jannach. Evaluation of Session-based Recommendation Algorithms. User Modeling and "
        "User-Adapted Interaction 28, 2018. https://doi.org/10.1007/s11257-018-9209-6"
    ),
    layouts=(layout("yoochoose-clicks-100k_train_full.txt", "yoochoose-clicks-100k_test.txt"),),
    folders=("rsc15_100k", "rsc15/prepared"),
    addresses=(
        Address(f"{_AT}yoochoose-clicks-100k_train_full.txt"),
        Address(f"{_AT}yoochoose-clicks-100k_test.txt"),
    ),
    by_hand="take the files from data/rsc15/prepared of https://github.com/rn5l/session-rec.",
)
