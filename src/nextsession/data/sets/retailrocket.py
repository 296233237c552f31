"""RetailRocket: views, carts and purchases of an online shop.

All three kinds are kept, with their names as actions.  Published figures of session-based models
count views only: `Labels(values=("view",), otherwise="dropped")` on the column `event`.
"""

from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, LogFormat

SET = DataSet(
    name="retailrocket",
    title="RetailRocket e-commerce",
    about=(
        "2,756,101 events (view, addtocart, transaction) of 1,407,580 visitors on 235,061 items, May to September "
        "2015. Sessions are cut at silences of 30 minutes. Every event is wanted."
    ),
    homepage="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
    licence="CC BY-NC-SA 4.0: attribution, no commercial use, share alike",
    citation="Roman Zykov, Noskov Artem and Anokhin Alexander. Retailrocket recommender system dataset. Kaggle, 2022.",
    layouts=(
        Layout(
            files=("events.csv",),
            form=LogFormat(
                columns=Columns(user="visitorid", item="itemid", time="timestamp", action="event"), time_unit="ms"
            ),
        ),
    ),
    folders=("ecommerce-dataset",),
    by_hand="download it from Kaggle (an account is needed) and unpack events.csv.",
)
