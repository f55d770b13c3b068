"""The subproblem of the group LASSO in NumPy and float64, by bisection, without the library."""

import numpy as np


def as_rows(subproblem, leaf):
    """A leaf (or a number) in float64, with the groups as rows."""
    shape = subproblem.start.shape
    inside = subproblem.regularizer.inner_axes(len(shape))
    order = [axis for axis in range(len(shape)) if axis not in inside] + list(inside)
    groups = int(np.prod([shape[axis] for axis in order[: len(shape) - len(inside)]], dtype=int))
    return np.broadcast_to(np.asarray(leaf, np.float64), shape).transpose(order).reshape(groups, -1)


class Exact:
    """The minimiser of one recorded subproblem; all attributes have the groups as rows.

    minimise 1/2 ||w||^2_metric - <rhs, w> + lam sum_g ||w_g||
    """

    def __init__(self, subproblem):
        self.subproblem = subproblem
        model = subproblem.model
        linear, anchor, self.metric = (as_rows(subproblem, leaf) for leaf in (model.slope, model.anchor, model.metric))
        self.rhs = self.metric * anchor - linear
        self.lam = float(model.weight) * np.sqrt(self.rhs.shape[1])
        norms = np.linalg.norm(self.rhs, axis=1)
        self.is_zero = norms <= self.lam
        self.value = np.zeros_like(self.rhs)
        rhs, metric, excess = self.rhs[~self.is_zero], self.metric[~self.is_zero], (norms - self.lam)[~self.is_zero]
        # The norm r of a group solves ||rhs / (metric r + lam)|| = 1, whose left side decreases.
        low, high = excess / metric.max(axis=1, initial=0), excess / metric.min(axis=1, initial=np.inf)
        for _ in range(64):  # halves a log ratio of at most 20 to below machine eps
            middle = np.sqrt(low * high)
            is_below = np.linalg.norm(rhs / (metric * middle[:, None] + self.lam), axis=1) > 1
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        self.value[~self.is_zero] = rhs / (metric + self.lam / np.sqrt(low * high)[:, None])

    def compare(self, value):
        """Measures of a solver's point, as a dict of numbers.

        Returns:
            kkt_residual: the distance of 0 to the subdifferential, over ||rhs||.
            error: of the point, over the norm of the exact one (NaN where that is 0).
            zeros: groups at zero in the exact point.
            zeros_missed: of these, how many are not zero here.
            zeros_false: groups at zero here, but not in the exact point.
        """
        w = as_rows(self.subproblem, value)
        norms = np.linalg.norm(w, axis=1)
        rhs_norms = np.linalg.norm(self.rhs, axis=1)
        unit = w / np.where(norms == 0, 1, norms)[:, None]
        alive = np.linalg.norm(self.metric * w - self.rhs + self.lam * unit, axis=1)
        residuals = np.where(norms == 0, np.maximum(rhs_norms - self.lam, 0), alive)
        size = np.linalg.norm(self.value)
        return {
            "kkt_residual": float(np.linalg.norm(residuals) / np.linalg.norm(rhs_norms)),
            "error": float(np.linalg.norm(w - self.value) / size) if size else float("nan"),
            "zeros": int(np.sum(self.is_zero)),
            "zeros_missed": int(np.sum(self.is_zero & (norms != 0))),
            "zeros_false": int(np.sum(~self.is_zero & (norms == 0))),
        }
