"""The concept bottleneck: layer, gates, losses, model and training, on embeddings."""

from sparsecbm.bottleneck.gates import GATES, Gate, make_gate
from sparsecbm.bottleneck.layer import ConceptBottleneckLayer, PublishedBottleneckLayer
from sparsecbm.bottleneck.losses import LOSSES, ConceptLoss, loss_class, make_loss
from sparsecbm.bottleneck.model import ConceptBottleneck, FrozenBottleneck
from sparsecbm.bottleneck.rows import Rows
from sparsecbm.bottleneck.statistics import Whitening, class_means, whitening
from sparsecbm.bottleneck.ties import TIES, ConceptGeometry, Tie, Tied, hand_out, make_tie
from sparsecbm.bottleneck.training import Trainer, TrainingOptions

__all__ = [
    "GATES",
    "LOSSES",
    "TIES",
    "ConceptBottleneck",
    "ConceptBottleneckLayer",
    "ConceptGeometry",
    "ConceptLoss",
    "FrozenBottleneck",
    "Gate",
    "PublishedBottleneckLayer",
    "Rows",
    "Tie",
    "Tied",
    "Trainer",
    "TrainingOptions",
    "Whitening",
    "class_means",
    "hand_out",
    "loss_class",
    "make_gate",
    "make_loss",
    "make_tie",
    "whitening",
]
