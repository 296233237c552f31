"""Amazon reviews of any category, as ratings or as reviews.

Every review is wanted, whatever the stars, and all reviews of a person are one session, as in the
literature on sequences.  Times are days: reviews of one day keep the order of the file.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, LogFormat, SessionRule

_PERSON = SessionRule(by="user")
_RATINGS = LogFormat(
    kind="csv", delimiter=",", header=("user_id", "item_id", "rating", "timestamp"), columns=Columns(), time_unit="s"
)
_REVIEWS = LogFormat(
    kind="jsonl", columns=Columns(user="reviewerID", item="asin", time="unixReviewTime"), time_unit="s"
)

SET = DataSet(
    name="amazon",
    title="Amazon product reviews (2014 and 2018)",
    about=(
        "Reviews of one category (all that lie in the folder are read, or the one file named): "
        "ratings_<category>.csv, or <category>_5.json.gz. Wanted: every review. A person is a session."
    ),
    homepage="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    licence="no licence is stated; for research, with citation of the papers",
    citation=(
        "Jianmo Ni, Jiacheng Li and Julian McAuley. Justifying Recommendations using Distantly-Labeled Reviews and "
        "Fine-Grained Aspects. EMNLP 2019. https://aclanthology.org/D19-1018/"
    ),
    layouts=(
        Layout(files=("ratings_*.csv",), form=_RATINGS, sessions=_PERSON),
        Layout(files=("*_5.json.gz",), form=_REVIEWS, sessions=_PERSON),
        Layout(files=("*_5.json",), form=_REVIEWS, sessions=_PERSON),
    ),
    by_hand="follow the links at https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html and choose a category.",
)
