"""Tmall as preprocessed for GCE-GNN: order only, with ready-made questions."""

from nextsession.data.dataset import DataSet
from nextsession.data.sets._gce import BY_HAND, CITATION, LAYOUT

SET = DataSet(
    name="tmall-gce",
    title="Tmall in the form of GCE-GNN",
    about="65,286 sessions to learn from, 25,898 prefixes to answer, 40,727 items; only the order is known.",
    homepage="https://github.com/CCIIPLab/GCE-GNN",
    licence="for research, not commercial; the terms of Tianchi apply",
    citation=CITATION,
    layouts=(LAYOUT,),
    folders=("tmall_gce",),
    by_hand=BY_HAND,
)
