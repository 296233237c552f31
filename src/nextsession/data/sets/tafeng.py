"""Ta-Feng: grocery baskets in their order; a basket is a session."""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, LogFormat, SessionRule

SET = DataSet(
    name="tafeng",
    title="Ta-Feng grocery baskets",
    about=(
        "571,933 purchases in 91,227 baskets of 13,858 people, 11,997 products; only the order of baskets is known. "
        "A basket is a session; people buy again what they bought before."
    ),
    homepage="https://www.kaggle.com/datasets/chiranjivdas09/ta-feng-grocery-dataset",
    licence="for research; see the homepage",
    citation=(
        "Chun-Nan Hsu, Hao-Hsiang Chung and Han-Shen Huang. Mining Skewed and Sparse Transaction Data for Personalized "
        "Shopping Recommendation. Machine Learning 57, 2004. https://doi.org/10.1023/B:MACH.0000035471.28235.6d"
    ),
    layouts=(
        Layout(
            files=("baskets.parquet",),
            form=LogFormat(columns=Columns(time=None, session="basket")),
            sessions=SessionRule(by="id"),
        ),
    ),
    by_hand="write baskets.parquet with the columns user_id, basket (its number), item_id, in the order of time.",
)
