"""Any log as plain text, `user item item ...` a line or `user item` on many lines, only ordered."""

from nextsession.data.dataset import DataSet
from nextsession.data.sets._text import layout

SET = DataSet(
    name="text",
    title="Plain text sequences",
    about=(
        "Your own file of sequences, or one of those that come with the code of papers: the first id of a line is "
        "the user, the others are items in their order; lines of one user follow one another. Item attributes are "
        "read from a file *item2attributes.json beside it. Name the file or its folder."
    ),
    homepage="https://github.com/kang205/SASRec",
    licence="that of the file",
    citation="",
    layouts=(layout("*.txt"), layout("*.txt.gz")),
    loose=True,
    by_hand="name a file of lines `user item item ...`, or the folder that holds it.",
)
