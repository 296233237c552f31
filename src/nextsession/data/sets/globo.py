"""Globo.com: clicks on the news portal G1, one gzipped or plain csv file an hour."""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, LogFormat, SessionRule

_FORM = LogFormat(
    columns=Columns(user="user_id", item="click_article_id", time="click_timestamp", session="session_id"),
    time_unit="ms",
)

SET = DataSet(
    name="globo",
    title="Globo.com news clicks (G1, Brazil)",
    about=(
        "2,988,181 clicks of 322,897 people in 1,048,594 sessions on 46,033 articles, October 2017. "
        "Sessions by the portal's own ids, of two clicks at least. Every click is wanted."
    ),
    homepage="https://www.kaggle.com/datasets/gspmoreira/news-portal-user-interactions-by-globocom",
    licence="academic and non-commercial use; the papers must be cited (Globo.com)",
    citation=(
        "Gabriel de Souza Pereira Moreira, Felipe Ferreira and Adilson Marques da Cunha. News Session-Based "
        "Recommendations using Deep Neural Networks. DLRS 2018. https://doi.org/10.1145/3270323.3270328"
    ),
    layouts=tuple(
        Layout(files=(f"{folder}clicks_hour_*.csv{gz}",), form=_FORM, sessions=SessionRule(by="id"))
        for folder in ("clicks/", "")
        for gz in (".gz", "")
    ),
    folders=("globocom", "news-portal-user-interactions-by-globocom"),
    by_hand="download it from Kaggle (an account is needed) and unpack clicks.zip.",
)
