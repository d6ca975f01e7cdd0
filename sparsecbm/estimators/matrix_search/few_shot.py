"""Class rows from a few labelled images, from texts, or from both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FewShotRows:
    """What labelled images, and texts where there are any, say about the classes.

    Attributes
    ----------
    class_rows : ndarray of shape (K, d)
        Estimated mean image of each class.
    image_mean : ndarray of shape (d,)
        Mean of the class means of the labelled images.
    image_covariance : ndarray of shape (d, d)
        Shrunk covariance of images about their class.
    images_a_class : float
        Mean number of labelled images, over all classes.
    """

    class_rows: Array
    image_mean: Array
    image_covariance: Array
    images_a_class: float


def few_shot_rows(
    texts: Array | None,
    has_text: NDArray[np.bool_],
    X: Array,
    labels: NDArray[np.int64],
    classes: NDArray[Any],
    *,
    covariance_shrinkage: float,
    text_weight: float,
) -> FewShotRows:
    """Estimate class means and their common covariance.

    Texts and images of a CLIP encoder lie in two cones apart (the modality gap: Liang et al. 2022, arXiv 2203.02053),
    and texts spread differently. A text row t_c therefore enters as

        m_text(c) = m + s (t_c - t),

    m and t the means of the image means and of the texts over the classes that have both, s the ratio of their spreads,
    that of the image means less what sampling noise adds. The class row is the mean of c's images and `text_weight`
    such text images; a class without images is its text alone, a class without a text its images alone.

    Parameters
    ----------
    texts : ndarray of shape (K, d), optional
        Text rows; rows of classes without a text are ignored.
    has_text : ndarray of bool, shape (K,)
    X : ndarray of shape (n, d)
        Labelled images.
    labels : ndarray of int64, shape (n,)
        Their class numbers.
    classes : ndarray of shape (K,)
        Names, for messages.
    covariance_shrinkage : float
        In [0, 1]: weight of the multiple of the identity in the within-class covariance.
    text_weight : float
        At least 0: a text counts as so many images.

    Raises
    ------
    InputError
        If a class has neither text nor image.
    """
    n_classes, dim = len(classes), X.shape[1]
    counts = np.bincount(labels, minlength=n_classes)
    nothing = np.flatnonzero((counts == 0) & ~has_text)
    if len(nothing):
        raise InputError(
            f"class {classes[nothing[0]]!r} ({len(nothing)} in all) has neither a text nor a labelled image: "
            "expected at least one of them"
        )
    sums = np.zeros((n_classes, dim))
    np.add.at(sums, labels, X)
    means = sums / np.maximum(counts, 1)[:, None]
    shot = counts > 0
    residuals = X - means[labels]
    freedom = len(X) - int(shot.sum())
    within = residuals.T @ residuals / freedom if freedom > 0 else np.zeros((dim, dim))
    noise = float(np.trace(within))
    overall = means[shot].mean(axis=0)
    if noise <= 0.0:  # one image a class: no spread within classes to see
        spread = float(((means[shot] - overall) ** 2).sum(axis=1).mean())
        covariance = (spread if spread > 0 else 1.0) / dim * np.eye(dim)
    else:
        covariance = (1.0 - covariance_shrinkage) * within + covariance_shrinkage * noise / dim * np.eye(dim)
    rows = means.copy()
    if texts is not None and has_text.any() and (text_weight > 0 or not shot.all()):
        both = shot & has_text
        images_of, texts_of = (both, both) if both.sum() >= 2 else (shot, has_text)
        image_center, text_center = means[images_of].mean(axis=0), texts[texts_of].mean(axis=0)
        image_spread = float(((means[images_of] - image_center) ** 2).sum(axis=1).mean())
        text_spread = float(((texts[texts_of] - text_center) ** 2).sum(axis=1).mean())
        sampling = noise * float((1.0 / counts[images_of]).mean())
        ratio = max(image_spread - sampling, 0.1 * image_spread) / text_spread if text_spread > 0 else 0.0
        as_images = image_center + np.sqrt(ratio) * (texts - text_center)
        weight = np.where(has_text, np.where(shot, text_weight, 1.0), 0.0)
        rows = (sums + weight[:, None] * np.where(has_text[:, None], as_images, 0.0)) / (counts + weight)[:, None]
    return FewShotRows(rows, overall, covariance, len(X) / n_classes)
