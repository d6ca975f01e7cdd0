"""Concepts that people have labelled: directions between a concept's text and its probe, and probabilities.

In whitened space a concept is a direction of length one. Its text gives one, p; a penalised logistic regression on
labelled pictures gives another, q. The concept becomes the direction of (1 - share) p + share q, and `share`, with the
probe's penalty, is what orders held-out labelled pictures best, the nearest to the text of what does equally well. Few
labels cannot say which that is, so each concept's held-out AUC counts together with the mean over concepts, which is
worth `_PRIOR_LABELS` labels: without labels the concept is its text, with many it is what its own labels prefer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sparsecbm._base.logistic import logistic_columns, sigmoid
from sparsecbm._base.ranks import pair_aucs
from sparsecbm.bottleneck.ties.base import unit_rows

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_PENALTIES = (1.0, 0.1, 0.01)
"""Of the squared weights, beside the mean cross-entropy."""
_EQUAL = 0.001
"""AUC between equals, of which the nearest to the text is taken: a probe has forgotten what the labels do not ask."""
_FOLDS = 5
_PRIOR_LABELS = 20
_PRIOR = (0.2, 0.05)
"""Nats, twice, that it costs to take slope and intercept of a concept without labels to 0: worth a few labels."""
_FLAT = 0.01
"""Least slope, of the guess."""
_SAMPLE = 1024


@dataclass(frozen=True)
class LabelledConcepts:
    """What labels make of concepts.

    Attributes
    ----------
    directions : ndarray of shape (M, d)
        Unit rows in whitened space.
    share : ndarray of shape (M,)
        In [0, 1]: how far each went from its text to its probe.
    slope, intercept : ndarray of shape (M,)
        P(concept j is there) = sigmoid(slope_j * z_j + intercept_j), z = h @ directions.T.
    auc : ndarray of shape (M,)
        Held-out, over labelled pictures; NaN without labels of both kinds.
    counts : ndarray of int, shape (2, M)
        Labelled pictures without and with each concept.
    """

    directions: np.ndarray
    share: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray
    auc: np.ndarray
    counts: np.ndarray


def learn_concepts(
    texts: np.ndarray | None, H: np.ndarray, C: np.ndarray, sample: np.ndarray, seed: int
) -> LabelledConcepts:
    """Learn directions and probabilities of concepts from labelled pictures.

    Parameters
    ----------
    texts : ndarray of shape (M, d) or None
        Unit rows, the directions of the concepts' texts in whitened space. None: there are only labels.
    H : ndarray of shape (n, d)
        Whitened embeddings of the labelled pictures.
    C : ndarray of shape (n, M)
        Labels in [0, 1]; NaN where there is none.
    sample : ndarray of shape (n', d)
        Whitened embeddings of any pictures, for what is probable before labels speak.
    seed : int
        Of the folds.
    """
    known = ~np.isnan(C)
    there = np.where(known, C, 0.0)
    counts = np.stack([(known & (there < 0.5)).sum(0), (known & (there >= 0.5)).sum(0)])
    enough = counts.min(axis=0) >= 2
    m = C.shape[1]
    share = np.zeros(m) if texts is not None else np.ones(m)
    directions = np.zeros((m, H.shape[1])) if texts is None else texts.copy()
    slope, intercept = unlabelled_presence(sample @ directions.T, seed)
    auc = np.full(m, np.nan)
    made = LabelledConcepts(directions, share, slope, intercept, auc, counts)
    few = np.flatnonzero(~enough & (counts.sum(axis=0) > 0))
    if len(few) and texts is not None:
        z, prior = H @ texts[few].T, (slope[few], intercept[few])
        slope[few], intercept[few] = _presence(z, there[:, few], known[:, few] * 1.0, *prior)
    chosen = np.flatnonzero(enough)
    if not len(chosen):
        return made
    H, C, known = H.astype(np.float64), there[:, chosen], known[:, chosen]
    anchors = None if texts is None else texts[chosen]
    shares = _SHARES if anchors is not None else (1.0,)
    fold = _folds(C, known, seed)
    # z[share, penalty] of every picture by directions that never saw its label.
    z = np.zeros((len(shares), len(_PENALTIES), *C.shape))
    for number in range(_FOLDS):
        out = fold == number
        rows = out.any(axis=1)
        for p, probes in enumerate(_probes(H, C, known & ~out)):
            for s, portion in enumerate(shares):
                z[s, p, rows] = np.where(out[rows], H[rows] @ _blend(anchors, probes, portion).T, z[s, p, rows])
    table = np.stack(
        [[pair_aucs(z[s, p], C >= 0.5, known) for p in range(len(_PENALTIES))] for s in range(len(shares))]
    )
    weight = counts[:, chosen].min(axis=0)
    mean = np.average(table, axis=-1, weights=weight)[..., None]
    judged = (weight * table + _PRIOR_LABELS * mean) / (weight + _PRIOR_LABELS)
    columns = np.arange(len(chosen))
    s = (judged.max(axis=1) >= judged.max(axis=(0, 1)) - _EQUAL).argmax(axis=0)
    p = judged[s, :, columns].argmax(axis=1)
    every = np.stack(list(_probes(H, C, known)))
    share[chosen] = np.asarray(shares)[s]
    directions[chosen] = _blend(anchors, every[p, columns], share[chosen][:, None])
    auc[chosen] = table[s, p, columns]
    held = z[s, p, :, columns].T
    start = unlabelled_presence(sample @ directions[chosen].T, seed)
    slope[chosen], intercept[chosen] = _presence(held, C, known.astype(float), *start)
    return made


def _presence(
    z: np.ndarray, C: np.ndarray, weight: np.ndarray, slope: np.ndarray, intercept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept (M,) of labels on scores (n, M), from a guess. Along its own direction a concept rises:

    a few labels that say otherwise are chance, and make it flat.
    """
    precision = _precision(slope, intercept)
    a, b = logistic_columns(z, C, weight, slope, intercept, precision)
    least = _FLAT * slope
    falls = np.flatnonzero(a < least)
    if len(falls):
        fixed = (np.full(len(falls), 1e9), precision[1][falls])
        a[falls], b[falls] = logistic_columns(
            z[:, falls], C[:, falls], weight[:, falls], least[falls], intercept[falls], fixed
        )
    return a, b


def unlabelled_presence(z: np.ndarray, seed: int, iterations: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept (M,) of P(present | z) for concepts without labels, from the spread of their scores alone.

    The posterior of a mixture of two normal distributions of one variance, by expectation maximisation on at most 1,024
    rows. Nothing checks that its upper half are the pictures that show the concept: a guess that labels put right.
    """
    rng = np.random.default_rng([seed, 5])
    z = z if len(z) <= _SAMPLE else z[np.sort(rng.choice(len(z), _SAMPLE, replace=False))]
    z = np.asarray(z, dtype=np.float64)
    spread = np.maximum(z.std(axis=0), 1e-12)
    low, high = np.quantile(z, [0.4, 0.9], axis=0)
    variance, part = 0.5 * spread**2, np.full(z.shape[1], 0.2)
    for _ in range(iterations):
        slope = np.maximum(high - low, 0.0) / variance
        intercept = np.log(part / (1 - part)) - slope * (high + low) / 2
        r = sigmoid(z * slope + intercept)
        total = r.sum(axis=0)
        # Two pictures that were never seen keep either side from being empty.
        part = (total + 1.0) / (len(z) + 5.0)
        high = (r * z).sum(axis=0) / np.maximum(total, 1e-9)
        low = ((1 - r) * z).sum(axis=0) / np.maximum(len(z) - total, 1e-9)
        variance = np.maximum((r * (z - high) ** 2 + (1 - r) * (z - low) ** 2).mean(axis=0), 1e-3 * spread**2)
    return slope, intercept


def _precision(slope: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a prior as wide as its centre: where scores have two clear humps the guess is steep, and may be wrong."""
    return _PRIOR[0] / np.maximum(slope**2, 1.0), _PRIOR[1] / np.maximum(intercept**2, 1.0)


def _blend(texts: np.ndarray | None, probes: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    return probes if texts is None else unit_rows((1.0 - share) * texts + share * probes)


def _probes(H: np.ndarray, C: np.ndarray, known: np.ndarray):
    """Unit rows (M, d) of one logistic regression a concept, for each penalty: all concepts in one L-BFGS, warm."""
    h, y, w = (torch.from_numpy(np.ascontiguousarray(part)).float() for part in (H, C, known))
    w = w / w.sum(dim=0).clamp_min(1.0)
    weight = torch.zeros(C.shape[1], H.shape[1], requires_grad=True)
    bias = torch.zeros(C.shape[1], requires_grad=True)
    for penalty in _PENALTIES:
        solver = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe", tolerance_grad=1e-5)

        def objective(solver: torch.optim.LBFGS = solver, penalty: float = penalty) -> torch.Tensor:
            solver.zero_grad()
            scores = h @ weight.T + bias
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, y, weight=w, reduction="sum")
            loss = loss + 0.5 * penalty * weight.square().sum()
            loss.backward()
            return loss

        solver.step(objective)
        yield unit_rows(weight.detach().double().numpy())


def _folds(C: np.ndarray, known: np.ndarray, seed: int) -> np.ndarray:
    """Fold (n, M) of each label, -1 where there is none: a concept's positives are dealt out evenly, so its others."""
    rng = np.random.default_rng([seed, 4])
    fold = np.full(C.shape, -1)
    order = rng.permutation(len(C))
    for side in (C >= 0.5, C < 0.5):
        mine = (known & side)[order]
        dealt = (np.cumsum(mine, axis=0) - 1) % _FOLDS
        fold[order] = np.where(mine, dealt, fold[order])
    return fold


def worth(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Mean activation of pictures without and with each concept, shape (2, M), float64.

    An activation is no probability, so a true value has to be translated (after Koh et al. 2020, arXiv 2007.04612,
    section 4.3).

    Parameters
    ----------
    activations : ndarray of shape (n, M)
    presence : ndarray of shape (n, M)
        How probable it is that each picture shows each concept, in [0, 1]; NaN leaves an entry out. A concept that is
        never or always there is worth the mean of all on both sides.
    """
    activations = np.asarray(activations, dtype=np.float64)
    known = ~np.isnan(presence)
    there = np.where(known, presence, 0.0)
    made = np.empty((2, activations.shape[1]))
    for side, weight in enumerate((known - there, there)):
        total = weight.sum(axis=0)
        mean = (weight * activations).sum(axis=0) / np.where(total > 0, total, 1.0)
        made[side] = np.where(total > 0, mean, activations.mean(axis=0))
    return made


def told(activations: np.ndarray, truth: np.ndarray, probabilities: bool) -> np.ndarray:
    """Activations (n, M) with the worth of the truth (n, M) in their place where it is known (not NaN).

    A concept recognised no better than by chance is worth the same absent and present, and a head cannot learn from its
    truth; among probabilities it is worth 0 and 1 all the same.
    """
    absent, present = np.array([0.0, 1.0]) if probabilities else worth(activations, truth)
    return np.where(np.isnan(truth), activations, absent + np.nan_to_num(truth) * (present - absent))
