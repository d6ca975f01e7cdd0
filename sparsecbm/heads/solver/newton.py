"""Newton's method on a support of weights, whatever the activations are stored in: the inner loop of every head.

A support offers the loss at a point, its slopes, products with its Hessian, and the inverses of its Hessian's blocks
(one a class), with which conjugate gradients are preconditioned, so that a handful of products suffices. The linear
`tilt` carries an l1 penalty with known signs.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def newton(
    support: Any,
    w: np.ndarray,
    b: np.ndarray,
    *,
    l2: float,
    tilt: np.ndarray | float = 0.0,
    lower: np.ndarray | None = None,
    tol: float = 1e-9,
    max_steps: int = 50,
    max_products: int = 60,
    forcing: float = 0.1,
    bends: Any = None,
    logits: np.ndarray | None = None,
    check: bool = True,
) -> Any:
    """Minimise on a fixed support, from (`w`, `b`).

    Parameters
    ----------
    support : Support or SparseSupport
        Free weights.
    w, b : ndarray of shapes (size,) and (K,)
        Start.
    l2 : float
        Ridge penalty, >= 0.
    tilt : ndarray of shape (size,) or float
        Linear penalty (l1 times the signs).
    lower : ndarray of int8, shape (size,), optional
        Signs that weights must keep (+1, -1; 0 for free). A weight that would cross zero stops there.
    tol : float
        Stop when the largest derivative is below it.
    max_steps, max_products : int
        Newton steps, and conjugate-gradient products in each.
    forcing : float
        Relative residual at which conjugate gradients stop.
    bends : Bends, optional
        Curvature at the start, if known.
    logits : ndarray of shape (K, n), optional
        Logits of the start, if known.
    check : bool
        Compute the derivative after the last step (`Fit.kkt`, else that before it).

    Returns
    -------
    Fit or SparseFit
        The point reached; its `objective` includes the penalties.
    """
    noise = 10 * float(np.finfo(support.dtype).eps)

    def at(w: np.ndarray, b: np.ndarray, logits: np.ndarray | None = None) -> Any:
        fit = support.point(w, b, logits)
        fit.objective += 0.5 * l2 * float(w @ w) + float(np.sum(tilt * w))
        return fit

    def slopes(fit: Any) -> tuple[np.ndarray, np.ndarray]:
        grad_w, grad_b = support.slopes(fit)
        return grad_w + l2 * fit.w + tilt, grad_b

    fit = at(w.astype(support.dtype), b.astype(support.dtype), logits)
    for step in range(max_steps + 1):
        if step == max_steps and not check:
            break
        grad_w, grad_b = slopes(fit)
        active = None
        if lower is not None:
            # Weights at zero that would have to cross stay there.
            active = ~((fit.w == 0) & (grad_w * lower > 0))
            grad_w = np.where(active, grad_w, 0.0)
        fit.kkt = max(_largest(grad_w), _largest(grad_b))
        if fit.kkt <= tol or step == max_steps:
            break
        if step % 4 == 0:  # an old preconditioner is nearly as good as a new one
            known = bends if step == 0 and bends is not None else support.bends(fit)
            inverses = support.inverses(known, l2)
        accuracy = min(forcing, 10 * np.sqrt(fit.kkt))
        u, v = _direction(support, fit, inverses, grad_w, grad_b, l2, active, max_products, accuracy)
        slope = float(grad_w @ u + grad_b @ v)
        if slope >= 0:
            break
        shift = support.shift(u, v) if lower is None else None
        support.spare(fit)
        length = 1.0
        for _ in range(30):
            new_w = fit.w + length * u
            if lower is not None:
                new_w = np.where(new_w * lower < 0, 0.0, new_w)
            new = at(new_w, fit.b + length * v, None if shift is None else fit.logits + length * shift)
            if new.objective <= fit.objective + 1e-4 * length * slope + noise * abs(fit.objective):
                break
            length *= 0.5
        else:
            break
        stalled = fit.objective - new.objective <= 0.1 * noise * abs(fit.objective)
        new.kkt = fit.kkt
        fit = new
        if stalled and step > 2:
            grad_w, grad_b = slopes(fit)
            fit.kkt = max(_largest(grad_w) if lower is None else fit.kkt, _largest(grad_b))
            break
    return fit


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _direction(
    support: Any,
    fit: Any,
    inverses: np.ndarray,
    grad_w: np.ndarray,
    grad_b: np.ndarray,
    l2: float,
    active: np.ndarray | None,
    max_products: int,
    forcing: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton direction (size,) and (K,) by preconditioned conjugate gradients."""
    size, slots, hessian = support.size, support.slots, support.hessian(fit)

    def precondition(residual: np.ndarray) -> np.ndarray:
        flat = np.append(residual, np.zeros(1, residual.dtype))
        flat[slots] = np.matmul(inverses, flat[slots][..., None])[..., 0]
        if active is not None:
            flat[:size][~active] = 0.0
        return flat[:-1]

    def product(p: np.ndarray) -> np.ndarray:
        # The direction in which all intercepts move together has no curvature; it is damped, and the gradient has no
        # component along it.
        of_w, of_b = hessian(p[:size], p[size:])
        of_w = of_w + l2 * p[:size]
        if active is not None:
            of_w[~active] = 0.0
        return np.concatenate([of_w, of_b + 1e-10 * p[size:]])

    gradient = np.concatenate([grad_w, grad_b]).astype(support.dtype, copy=False)
    x, residual = np.zeros_like(gradient), -gradient
    z = precondition(residual)
    p, energy = z, float(residual @ z)
    first = energy
    for _ in range(max_products):
        bent = product(p)
        bend = float(p @ bent)
        if bend <= 0:
            break
        step = energy / bend
        x, residual = x + step * p, residual - step * bent
        z = precondition(residual)
        new = float(residual @ z)
        if new <= forcing**2 * first:
            break
        p, energy = z + (new / energy) * p, new
    if not x.any():
        x = precondition(-gradient)
    return x[:size], x[size:]
