"""Diginetica as preprocessed for SR-GNN and GCE-GNN: order only, with ready-made questions."""

from nextsession.data.dataset import DataSet
from nextsession.data.sets._gce import BY_HAND, CITATION, LAYOUT

SET = DataSet(
    name="diginetica-gce",
    title="Diginetica in the form of SR-GNN and GCE-GNN",
    about="186,670 sessions to learn from, 60,858 prefixes to answer, 43,097 items; only the order is known.",
    homepage="https://github.com/CCIIPLab/GCE-GNN",
    licence="for research; the terms of the CIKM Cup 2016 apply",
    citation=CITATION,
    layouts=(LAYOUT,),
    folders=("diginetica_gce",),
    by_hand=BY_HAND,
)
