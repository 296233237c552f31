"""The toy sessions of the Serenade server: the reference set of VMIS-kNN, with ready-made questions."""

from nextsession.data.dataset import DataSet
from nextsession.data.sets._sessionrec import layout

SET = DataSet(
    name="serenade-toy",
    title="Serenade toy sessions (bol.com)",
    about=(
        "113,601 clicks in 23,753 sessions on 18,009 items to learn from; 1,233 clicks in 302 sessions to ask, each "
        "but the first of its session."
    ),
    homepage="https://github.com/bolcom/serenade",
    licence="see the repository of Serenade",
    citation=(
        "Barrie Kersbergen, Olivier Sprangers and Sebastian Schelter. Serenade - Low-Latency Session-Based "
        "Recommendation in e-Commerce at Scale. SIGMOD 2022. https://doi.org/10.1145/3514221.3517901"
    ),
    layouts=(layout("train.txt", "test.txt"),),
    folders=("serenade_toy",),
    by_hand="take the toy data set of https://github.com/bolcom/serenade and unpack train.txt and test.txt.",
)
