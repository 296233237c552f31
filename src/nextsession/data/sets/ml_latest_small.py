"""MovieLens latest-small: 100,000 recent ratings; the set is renewed now and then.

Ratings are feedback in both directions: 4 stars and more are wanted, the others shown and ignored.
Sessions are cut at silences of 30 minutes.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, LogFormat
from nextsession.data.sets._movielens import CITATION, LICENCE, LIKED, movies_csv

SET = DataSet(
    name="ml-latest-small",
    title="MovieLens latest-small",
    about=(
        "About 100,000 ratings of 9,000 films by 600 people, half a star to five. Wanted: at least 4 stars. "
        "GroupLens renews it: say which version was used (2016: 671 people, 2018: 610)."
    ),
    homepage="https://grouplens.org/datasets/movielens/latest/",
    licence=LICENCE,
    citation=CITATION,
    layouts=(
        Layout(
            files=("ratings.csv",),
            form=LogFormat(columns=Columns(user="userId", item="movieId", label="rating"), time_unit="s", labels=LIKED),
            items=movies_csv,
            item_files=("movies.csv",),
        ),
    ),
    addresses=(Address("https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"),),
)
