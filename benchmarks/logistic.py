"""Group-sparse logistic regression, solved to the end in float64 without stochastic gradients, with a certificate.

Accelerated proximal gradient finds the living groups. Newton's method on these groups finds the remaining digits.
"""

import math
import sys
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import log_softmax, softmax, xlogy


class Problem(NamedTuple):
    """Mean cross entropy plus `ridge / 2 ||kernel||^2` plus `group_weight` times the sum of the norms of its rows.

    Attributes:
        inputs: (samples, features).
        labels: (samples, classes), one-hot.
        group_weight: lambda sqrt(classes).
        ridge: the weight of the kernel's squares; the bias is not penalised.
    """

    inputs: np.ndarray
    labels: np.ndarray
    group_weight: float
    ridge: float = 0.0

    def errors(self, kernel, bias):
        """(probabilities minus labels, the loss)."""
        logits = self.inputs @ kernel + bias
        loss = -np.mean(np.sum(self.labels * log_softmax(logits, axis=1), axis=1))
        return softmax(logits, axis=1) - self.labels, loss

    def gradient(self, kernel, bias):
        """(gradient of the smooth part by kernel, by bias, the objective)."""
        error, loss = self.errors(kernel, bias)
        objective = loss + 0.5 * self.ridge * np.sum(kernel**2)
        objective += self.group_weight * np.linalg.norm(kernel, axis=1).sum()
        return self.inputs.T @ error / len(error) + self.ridge * kernel, error.mean(axis=0), objective

    def residual(self, kernel, bias):
        """The distance of 0 to the subdifferential."""
        slope, slope_bias, _ = self.gradient(kernel, bias)
        norms = np.linalg.norm(kernel, axis=1, keepdims=True)
        lengths = np.linalg.norm(slope, axis=1)
        alive = slope + self.group_weight * kernel / np.where(norms > 0, norms, 1)
        each = np.where(norms[:, 0] > 0, np.linalg.norm(alive, axis=1), np.maximum(lengths - self.group_weight, 0))
        return float(np.sqrt(np.sum(each**2) + np.sum(slope_bias**2)))


def shrunk(kernel, threshold):
    """The prox of the group norms."""
    norms = np.linalg.norm(kernel, axis=1, keepdims=True)
    return kernel * np.maximum(1 - threshold / np.where(norms > 0, norms, 1), 0)


def accelerated(problem, kernel, bias, num_steps):
    """FISTA with restarts, until most of the living groups are known."""
    ones = np.ones((len(problem.inputs), 1), problem.inputs.dtype)
    # The softmax has a curvature of at most 1/2. Power iteration finds the largest eigenvalue of the inputs' second
    # moments.
    vector = np.ones(problem.inputs.shape[1] + 1, problem.inputs.dtype)
    whole, image = np.hstack([problem.inputs, ones]), vector
    for _ in range(30):
        image = whole.T @ (whole @ vector) / len(whole)
        vector = image / np.linalg.norm(image)
    step = 1 / (0.5 * 1.02 * float(np.linalg.norm(image)) + problem.ridge)
    w, b, y, y_bias, momentum = kernel, bias, kernel, bias, 1.0
    for _ in range(num_steps):
        slope, slope_bias, _ = problem.gradient(y, y_bias)
        new, new_bias = shrunk(y - step * slope, step * problem.group_weight), y_bias - step * slope_bias
        uphill = np.sum((y - new) * (new - w)) + np.sum((y_bias - new_bias) * (new_bias - b)) > 0
        following = 1.0 if uphill else (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        factor = 0.0 if uphill else (momentum - 1) / following
        y, y_bias, momentum = new + factor * (new - w), new_bias + factor * (new_bias - b), following
        w, b = new, new_bias
    return w, b


def newton(problem, kernel, bias, tolerance, num_steps=60, progress=False):
    """Newton's method on the living groups; drops groups that shrink to zero, adds groups that must not be zero."""
    kernel, bias, factor, last = kernel.copy(), bias.copy(), None, np.inf
    for _ in range(num_steps):
        slope, slope_bias, objective = problem.gradient(kernel, bias)
        alive = np.linalg.norm(kernel, axis=1) > 0
        lengths = np.linalg.norm(slope, axis=1)
        wrong = ~alive & (lengths > problem.group_weight)
        if wrong.any():  # a small step in the direction of descent
            kernel[wrong] = -1e-4 * slope[wrong] / lengths[wrong, None]
            factor = None
            continue
        units = kernel[alive] / np.linalg.norm(kernel[alive], axis=1, keepdims=True)
        full = np.concatenate([(slope[alive] + problem.group_weight * units).ravel(), slope_bias])
        residual = float(np.linalg.norm(full))
        if progress:
            print(f"  {objective:.12f}, residual {residual:.1e}, {np.sum(~alive)} zero groups", file=sys.stderr)
        if residual <= tolerance:
            break
        # Use the same Hessian again as long as it reduces the residual.
        if factor is None or residual > 0.1 * last:
            factor = cho_factor(hessian(problem, kernel, bias, alive), overwrite_a=True)
        last = residual
        direction = -cho_solve(factor, full)
        move, move_bias = direction[: -len(bias)].reshape(units.shape), direction[-len(bias) :]
        length = 1.0
        while True:
            new, new_bias = kernel.copy(), bias + length * move_bias
            new[alive] += length * move
            # A group whose direction would reverse becomes zero.
            new[alive] *= np.sum(new[alive] * units, axis=1, keepdims=True) > 1e-9
            if problem.gradient(new, new_bias)[2] <= objective + 1e-14 or length < 1e-3:
                break
            length /= 2
        if (np.linalg.norm(new, axis=1) > 0).sum() < alive.sum():
            factor = None
        kernel, bias = new, new_bias
    return kernel, bias


def hessian(problem, kernel, bias, alive):
    """The Hessian of the objective in the living groups and the bias."""
    error, _ = problem.errors(kernel, bias)
    p = error + problem.labels
    whole = np.hstack([problem.inputs[:, alive], np.ones((len(p), 1))])
    size, classes = whole.shape[1], p.shape[1]
    blocks = np.empty((size, classes, size, classes))
    for a in range(classes):
        for b in range(a + 1):
            weights = p[:, a] * ((a == b) - p[:, b])
            block = (whole * weights[:, None]).T @ whole / len(p)
            blocks[:, a, :, b] = blocks[:, b, :, a] = block
    norms = np.linalg.norm(kernel[alive], axis=1)
    for group, (norm, row) in enumerate(zip(norms, kernel[alive], strict=True)):
        unit = row / norm
        curvature = problem.group_weight / norm * (np.eye(classes) - np.outer(unit, unit))
        blocks[group, :, group, :] += curvature + problem.ridge * np.eye(classes)
    blocks[-1, :, -1, :] += 1e-3  # the loss does not change when one number is added to all biases
    return blocks.reshape(size * classes, size * classes)


class Certificate(NamedTuple):
    """Attributes: gap; by group whether it is zero in all minimisers; the margin `lambda omega_g - ||gradient||`."""

    gap: float
    zero: np.ndarray
    margins: np.ndarray


def certify(problem, kernel, bias):
    """A dual point from a primal one, and what its gap proves, for a ridge of 0.

    With p probabilities, y the labels and H the entropy,

        F(W) >= mean_i H(p_i)   for all p with mean_i (p_i - y_i) = 0 and ||X_g^T (p - y)|| / n <= group_weight.

    The entropy is strongly concave. So the gap between the two sides bounds the distance of p to the dual's only
    solution p*, `||p - p*||^2 <= 2 n gap`, and so the norm of a group's gradient at the solution. If even this bound is
    below group_weight, the group is zero in every minimiser.
    """
    assert problem.ridge == 0
    error, _ = problem.errors(kernel, bias)
    slope, slope_bias, objective = problem.gradient(kernel, bias)
    lengths = np.linalg.norm(slope, axis=1)
    scale = min(1.0, problem.group_weight / lengths.max())
    p = np.clip(problem.labels + scale * error, 0, 1)
    # The mean of the errors must be 0; the bound includes its rounding error.
    value = -np.mean(np.sum(xlogy(p, p), axis=1)) - scale * np.abs(slope_bias).max() * np.abs(bias).sum()
    gap = objective - value
    # 1/n times the entropy is 1/n strongly concave. The gap is a difference, and has the rounding of its two numbers.
    radius = np.linalg.norm(problem.inputs, axis=0) / np.sqrt(len(p)) * np.sqrt(2 * (max(gap, 0) + 1e-13 * objective))
    return Certificate(gap, scale * lengths + radius < problem.group_weight, problem.group_weight - lengths)


def solve(problem, num_steps=1500, tolerance=1e-10, progress=False):
    """(kernel, bias) of the minimiser."""
    # NumPy's numbers would promote it to float64.
    inputs, labels = problem.inputs.astype(np.float32), problem.labels.astype(np.float32)
    single = Problem(inputs, labels, float(problem.group_weight), float(problem.ridge))
    classes = problem.labels.shape[1]
    start = np.zeros((problem.inputs.shape[1], classes), np.float32), np.zeros(classes, np.float32)
    kernel, bias = accelerated(single, *start, num_steps)
    return newton(problem, kernel.astype(np.float64), bias.astype(np.float64), tolerance, progress=progress)
