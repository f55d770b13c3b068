"""Proximal gradient for the group norm as in the papers' released code, in a plain NumPy loop.

One leaf, as a matrix whose rows are the groups (`group_norm.rows`), in float64.
"""

import numpy as np


def shrink(x, threshold):
    """The prox of `threshold_g ||.||`, row by row; `threshold` has one number per row."""
    result = np.zeros_like(x)
    for g in range(len(x)):
        norm = np.sqrt(np.sum(x[g] ** 2))
        if norm > threshold[g]:
            result[g] = x[g] - threshold[g] * x[g] / norm
    return result


def released(linear, anchor, metric, lam, start, rtol=1e-8, max_steps=100, per_block=True):
    """(w, number of iterations, values of Q), by the released stopping rule.

    Groups with `||rhs_g|| <= lam` are set to zero first. The others start at `start`. Each iteration is a proximal
    gradient step with the step size 1 / max of the metric (over the group, or over the leaf). From the second iteration
    on, the loop ends when `(Q_before - Q) / (|Q| + 1) < rtol`.
    """
    w = np.zeros_like(start)
    rhs = metric * anchor - linear
    kept = [g for g in range(len(rhs)) if np.sqrt(np.sum(rhs[g] ** 2)) > lam]
    z = start[kept].copy()
    largest = np.max(metric[kept], axis=1) if per_block else np.full(len(kept), np.max(metric))

    def objective(z):
        step = z - anchor[kept]
        smooth = np.sum(linear[kept] * step) + np.sum(metric[kept] * step**2) / 2
        return smooth + lam * sum(np.sqrt(np.sum(row**2)) for row in z)

    values = []
    for iteration in range(max_steps):
        gradient = linear[kept] + metric[kept] * (z - anchor[kept])
        z = shrink(z - gradient / largest[:, None], lam / largest)
        values.append(objective(z))
        if iteration >= 1 and (values[-2] - values[-1]) / (abs(values[-1]) + 1) < rtol:
            break
    w[kept] = z
    return w, len(values), values
