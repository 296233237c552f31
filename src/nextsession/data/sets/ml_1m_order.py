"""MovieLens 1M in exactly the order of the text file behind the published SASRec and BERT4Rec tables.

Five ratings a user and a film at least; items are numbered anew, so titles are not known.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, LogFormat, SessionRule
from nextsession.data.sets._movielens import CITATION, LICENCE
from nextsession.data.sets._text import layout

SET = DataSet(
    name="ml-1m-order",
    title="MovieLens 1M in the order of SASRec",
    about=(
        "999,611 ratings of 3,416 films by 6,040 people, all wanted; only the order is known. A person is a session."
    ),
    homepage="https://github.com/kang205/SASRec",
    licence=LICENCE,
    citation=CITATION,
    layouts=(
        Layout(
            files=("ml1m_sasrec_order.parquet",),
            form=LogFormat(columns=Columns(time=None)),
            sessions=SessionRule(by="user"),
        ),
        layout("ml-1m.txt"),
    ),
    folders=("ml-1m",),
    addresses=(Address("https://raw.githubusercontent.com/kang205/SASRec/master/data/ml-1m.txt"),),
)
