"""Amazon Beauty as preprocessed for S3-Rec: 5-core, only ordered, with attributes of the items."""

from nextsession.data.dataset import DataSet
from nextsession.data.fetch import Address
from nextsession.data.sets._text import layout

_AT = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/master/data/"

SET = DataSet(
    name="beauty",
    title="Amazon Beauty in the form of S3-Rec",
    about=(
        "198,502 reviews of 12,101 items by 22,363 people, with categories and brands as attributes; only the order "
        "is known. A person is a session."
    ),
    homepage="https://github.com/RUCAIBox/CIKM2020-S3Rec",
    licence="no licence is stated; for research, with citation of the papers",
    citation=(
        "Kun Zhou, Hui Wang, Wayne Xin Zhao et al. S3-Rec: Self-Supervised Learning for Sequential Recommendation "
        "with Mutual Information Maximization. CIKM 2020. https://arxiv.org/abs/2008.07873"
    ),
    layouts=(layout("Beauty.txt"),),
    folders=("beauty_s3rec",),
    addresses=(Address(f"{_AT}Beauty.txt"), Address(f"{_AT}Beauty_item2attributes.json")),
)
