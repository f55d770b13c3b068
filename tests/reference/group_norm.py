"""The subproblem of the group norm, written from its optimality conditions.

    minimise 1/2 ||w||^2_metric - <rhs, w> + sum_g lam_g ||w_g||

Everything is computed in NumPy's widest float, group by group; only the bracketing search is float64. Arguments name
the group axes, and `rows` turns the groups into the rows of a matrix.
"""

import numpy as np
from scipy.optimize import brentq


def wide(x):
    return np.asarray(x).astype(np.longdouble)


def rows(x, group_axes):
    """The groups of x as the rows of a matrix: (number of groups, size of a group)."""
    x = np.asarray(x)
    group_axes = tuple(axis % x.ndim for axis in group_axes)
    moved = np.moveaxis(x, group_axes, range(len(group_axes)))
    groups = int(np.prod([x.shape[axis] for axis in group_axes], dtype=int))
    inside = [size for axis, size in enumerate(x.shape) if axis not in group_axes]
    return moved.reshape(groups, int(np.prod(inside, dtype=int)))


def norms(x, group_axes):
    """The norm of every group."""
    return np.sqrt(np.sum(wide(rows(x, group_axes)) ** 2, axis=1))


def kkt_residuals(w, rhs, metric, lam, group_axes):
    """The distance of 0 to the subdifferential of the objective at w, for every group.

    At w_g != 0 the norm is smooth, and the distance is `||metric w - rhs + lam w / ||w|| ||`. At w_g = 0 its
    subdifferential is the ball of radius lam, and the distance is `max(||rhs|| - lam, 0)`.
    """
    result = []
    for w_g, rhs_g, metric_g in zip(*(wide(rows(x, group_axes)) for x in (w, rhs, metric)), strict=True):
        radius = np.sqrt(np.sum(w_g**2))
        if radius == 0:
            result.append(max(np.sqrt(np.sum(rhs_g**2)) - lam, 0))
        else:
            result.append(np.sqrt(np.sum((metric_g * w_g - rhs_g + lam * (w_g / radius)) ** 2)))
    return np.array(result, np.longdouble)


def distance(leaves):
    """The distance of 0 to the subdifferential over several leaves: a list of `kkt_residuals`'s arguments."""
    return np.sqrt(sum(np.sum(kkt_residuals(*leaf) ** 2) for leaf in leaves))


def objective(w, rhs, metric, lam, group_axes):
    w, rhs, metric = wide(w), wide(rhs), wide(metric)
    return np.sum(metric * w**2) / 2 - np.sum(rhs * w) + lam * np.sum(norms(w, group_axes))


def solve_group(rhs, metric, lam):
    """(w, r, slope) of one group, a vector; slope is `d log ||rhs / (metric r + lam)|| / d log r`, in [-1, 0)."""
    rhs, metric, lam = wide(rhs), wide(metric), wide(lam)
    norm = np.sqrt(np.sum(rhs**2))
    if norm <= lam:
        return np.zeros_like(rhs), wide(0), wide(-1)
    if lam == 0:
        w = rhs / metric
        return w, np.sqrt(np.sum(w**2)), wide(-1)
    # Scale the problem to ||rhs|| = 1, and measure r in units of the root for the smallest metric. Then log r is in
    # [log(min metric / max metric), 0].
    x, lam, largest = rhs / norm, lam / norm, (1 - lam / norm) / np.min(metric)

    def secular(log_r):
        return float(np.log(np.sum((x / (metric * (largest * np.exp(wide(log_r))) + lam)) ** 2)))

    low = float(np.log(np.min(metric) / np.max(metric))) - 1e-3
    r = largest * np.exp(wide(brentq(secular, low, 1e-3, xtol=1e-13, rtol=1e-13)))
    for _ in range(2):  # polish to the accuracy of the wide float
        t = metric * r + lam
        s2, s3 = np.sum((x / t) ** 2), np.sum((x / t) ** 2 * (metric / t))
        r += (s2 - 1) / (2 * s3)
    t = metric * r + lam
    slope = -np.sum((x / t) ** 2 * (metric * r / t))
    return norm * x * (r / t), r * norm, slope


def solve(rhs, metric, lam, group_axes):
    """(w, radii, slopes): w has the shape of `rows`, and each group has a radius and a slope."""
    solutions = [
        solve_group(*group, lam) for group in zip(rows(rhs, group_axes), rows(metric, group_axes), strict=True)
    ]
    w, radii, slopes = zip(*solutions, strict=True)
    return np.array(w), np.array(radii), np.array(slopes)
