"""MovieLens 20M from its ratings file.

As in the literature on sequences every rating is wanted, whatever the number of stars, and all
ratings of a person are one session.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, LogFormat, SessionRule
from nextsession.data.sets._movielens import CITATION, LICENCE, movies_csv

SET = DataSet(
    name="ml-20m",
    title="MovieLens 20M",
    about=(
        "20,000,263 ratings of 26,744 films by 138,493 people, 1995 to 2015. Wanted: every rating. "
        "A person is a session."
    ),
    homepage="https://grouplens.org/datasets/movielens/20m/",
    licence=LICENCE,
    citation=CITATION,
    layouts=(
        Layout(
            files=("ratings.csv",),
            form=LogFormat(columns=Columns(user="userId", item="movieId"), time_unit="s"),
            sessions=SessionRule(by="user"),
            items=movies_csv,
            item_files=("movies.csv",),
        ),
    ),
    addresses=(
        Address(
            "https://files.grouplens.org/datasets/movielens/ml-20m.zip",
            198_702_078,
            "md5:cd245b17a1ae2cc31bb14903e1204af3",
        ),
    ),
)
