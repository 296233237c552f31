"""SASRec: self-attention over what came before, and the recipes of the field for training it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from nextsession.answering import Facts
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.networks import Head, Input, Network, NextItem
from nextsession.nn.transformer import BlockForm, Transformer

_BLOCK_2018 = {"norm": "original", "ffn": "relu", "inner": 1}


class SASRecSettings(NeuralSettings):
    """Settings of `SASRec`; by default those of `sasrec+`."""

    layers: int = Field(default=2, ge=1)
    """Blocks of attention."""
    heads: int = Field(default=1, ge=1)
    """Heads of each; they divide `dim`."""
    norm: Literal["original", "pre", "post"] = "original"
    """Where layers are normalised: as in the paper (only queries, and they are added to), before, or after."""
    ffn: Literal["relu", "gelu", "swiglu"] = "relu"
    """The feed-forward part."""
    inner: int = Field(default=1, ge=1)
    """Its inner width in multiples of `dim`."""
    gated: bool = False
    """Weigh what each part adds by a sigmoid of the stream (LiGR)."""
    positions: Literal["from-start", "from-end", "relative", "none"] = "from-start"
    """How places in a row are known: learned vectors by the distance from the oldest or the newest event that
    is read, or a learned bias of attention for each distance of two events."""
    scale: bool = True
    """Multiply item vectors by the root of `dim` before positions are added."""
    project: bool = True
    """A linear map after attention (the original has none)."""
    tied: bool = True
    """The same vectors for items read and items ranked."""
    normalise: bool = False
    """Bring queries and items to length 1 before they meet."""
    temperature: float = Field(default=1.0, gt=0)
    """Scores are divided by this."""
    init: Literal["normal", "xavier", "torch"] = "normal"
    """Weights are drawn from a normal distribution of standard deviation .02, or as Glorot and Bengio do, or as torch
    does if nobody says how: vectors of standard deviation 1."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sasrec": {"loss": {"kind": "bce"}},
        "sasrec+": {},
        "sasrec+3000": {
            "loss": {
                "kind": "sampled_softmax",
                "negatives": {"kind": "uniform", "n": 3000, "per": "row", "distinct": True, "unseen": True},
            },
        },
        "gsasrec": {
            "dim": 128,
            "dropout": 0.5,
            "positions": "from-end",
            "scale": False,
            "project": False,
            "tied": False,
            "init": "torch",
            "loss": {"kind": "gbce", "t": 0.75},
        },
        "esasrec": {
            "norm": "pre",
            "ffn": "swiglu",
            "inner": 4,
            "gated": True,
            "positions": "from-end",
            "scale": False,
            "betas": (0.9, 0.98),
            "init": "xavier",
            "loss": {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 256}},
        },
    }


class SASRec(NeuralRecommender[SASRecSettings]):
    """Self-attention reads the events of a row, each after those before it; the state after the last asks for the next.

    `E[x] sqrt(D) + P`, causal blocks (`nextsession.nn.transformer.Block`), a layer norm, and a dot
    product with the same item vectors.  Presets: `sasrec` (the paper: one negative, binary
    cross-entropy; clearly weaker, do not compare with it alone), `sasrec+` and `sasrec+3000`
    (Klenitskiy & Vasilev 2023: softmax over all items, or over 3000 drawn ones), `gsasrec` (Petrov &
    Macdonald 2023: calibrated binary cross-entropy), `esasrec` (Tikhonovich et al. 2025: gated
    blocks, sampled softmax).
    """

    name = "sasrec"
    reference = "Kang & McAuley, Self-attentive sequential recommendation, ICDM 2018"

    def _network(self, facts: Facts) -> Network:
        settings = self.config
        items = ItemEmbedding(facts.n_items, settings.dim)
        absolute = settings.positions in ("from-start", "from-end")
        inputs = Input(
            items,
            positions=settings.max_length if absolute else 0,
            from_end=settings.positions == "from-end",
            scale=settings.scale,
            rate=settings.dropout,
            features=facts.side_features(settings.dim, settings.feature_dim),
        )
        form = BlockForm(
            heads=settings.heads,
            norm=settings.norm,
            ffn=settings.ffn,
            inner=settings.inner,
            gated=settings.gated,
            rate=settings.dropout,
            project=settings.project,
            relative=settings.max_length if settings.positions == "relative" else 0,
        )
        network = NextItem(
            inputs,
            Transformer(settings.dim, settings.layers, form),
            Head(items, tied=settings.tied, normalise=settings.normalise, temperature=settings.temperature),
        )
        _draw(network, settings.init)
        return network

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """One small variant for each published recipe."""
        small = {"dim": 16, "max_length": 20, "epochs": 30, "batch_size": 8, "learning_rate": 0.01}
        others = {"max_length": 20, "dim": 16, "batch_size": 16, "learning_rate": 0.01, "epochs": 3}
        return [small, *({**others, "preset": name} for name in ("sasrec", "gsasrec", "esasrec"))]


def _draw(network: nn.Module, init: str) -> None:
    """Draw the weights of all maps and tables anew; biases begin at 0, but for those of `torch`."""
    if init == "torch":
        maps = [module for module in network.modules() if isinstance(module, nn.Linear)]
        drawn = {id(weight) for module in maps for weight in module.parameters()}
        for module in maps:
            module.reset_parameters()
        for weight in network.parameters():
            if weight.dim() >= 2 and id(weight) not in drawn:
                nn.init.normal_(weight)
        return
    for name, weight in network.named_parameters():
        if weight.dim() < 2:
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            continue
        if init == "xavier":
            nn.init.xavier_normal_(weight)
        else:
            nn.init.normal_(weight, std=0.02)
