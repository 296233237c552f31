"""MovieLens 1M from its ratings file.

As in the literature on sequences every rating is wanted, whatever the number of stars, and all
ratings of a person are one session.  Ratings of the same second keep the order of the file.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, LogFormat, SessionRule
from nextsession.data.sets._movielens import CITATION, LICENCE, movies_dat

SET = DataSet(
    name="ml-1m",
    title="MovieLens 1M",
    about="1,000,209 ratings of 3,706 films by 6,040 people, 2000 to 2003, all wanted. A person is a session.",
    homepage="https://grouplens.org/datasets/movielens/1m/",
    licence=LICENCE,
    citation=CITATION,
    layouts=(
        Layout(
            files=("ratings.dat",),
            form=LogFormat(
                kind="csv",
                delimiter="::",
                header=("user_id", "item_id", "rating", "timestamp"),
                columns=Columns(),
                time_unit="s",
            ),
            sessions=SessionRule(by="user"),
            items=movies_dat,
            item_files=("movies.dat",),
        ),
    ),
    addresses=(
        Address(
            "https://files.grouplens.org/datasets/movielens/ml-1m.zip", None, "md5:c4d9eecfca2ab87c1945afe126590906"
        ),
    ),
)
