"""Predicts the fluctuations of living groups at a constant learning rate, with a linear model around the minimiser.

A living group's direction is averaged like the gradients; only its radius fluctuates (docs/identification.md,
`How far they go`). With R the columns of radial directions (and of the bias), H = R^T hessian R and C the covariance of
a batch's gradient between them, the radii w, and w_hat, from which they are averaged, follow

    w_hat <- w_hat - E (H w + noise),    w <- (1 - c) w + c w_hat,

where E has the effective learning rates. The covariance of w and w_hat solves a Lyapunov equation.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from benchmarks.logistic import Problem, hessian


class Linear(NamedTuple):
    """The linear model, for the living groups in their order and then the entries of the bias.

    Attributes:
        groups: the number of living groups.
        curvature: H.
        noise: C.
        root: the mean over the entries of a group, by the squares of its unit vector, of (mean squared gradient)^(1/3).
    """

    groups: int
    curvature: np.ndarray
    noise: np.ndarray
    root: np.ndarray

    def rates(self, method, learning_rate):
        """The effective learning rates. RAMDA's step has about 2/3 of the rate, over the cube root of the squares."""
        if method == "rmda":
            return np.full(len(self.root), learning_rate)
        return (1.5 * learning_rate**2) ** (1 / 3) / self.root

    def deviations(self, method, learning_rate, averaging=1.0):
        """(of w_hat, of w), one number for each living group."""
        size, c = len(self.root), averaging
        rates = self.rates(method, learning_rate)
        move = rates[:, None] * self.curvature
        identity = np.eye(size)
        step = np.block([[identity, -move], [c * identity, (1 - c) * identity - c * move]])
        noise = rates[:, None] * self.noise * rates
        kick = np.block([[noise, c * noise], [c * noise, c * c * noise]])
        variances = np.diag(solve_discrete_lyapunov(step, kick))
        return np.sqrt(variances[: self.groups]), np.sqrt(variances[size : size + self.groups])


def linear_model(problem: Problem, kernel, bias, batch) -> Linear:
    """The linear model at a minimiser, for batches drawn with replacement."""
    norms = np.linalg.norm(kernel, axis=1)
    alive, classes = norms > 0, len(bias)
    error, _ = problem.errors(kernel, bias)
    units = kernel[alive] / norms[alive, None]
    count = int(alive.sum())
    radial = np.zeros(((count + 1) * classes, count + classes))
    for group, unit in enumerate(units):
        radial[group * classes : (group + 1) * classes, group] = unit
    radial[count * classes :, count:] = np.eye(classes)
    # One row for each sample, by the living groups and the bias. The curvature of the norms is orthogonal to the radii.
    samples = np.einsum("ng,nc->ngc", np.hstack([problem.inputs[:, alive], np.ones((len(error), 1))]), error)
    samples = samples.reshape(len(error), -1)
    projected = samples @ radial
    smooth = samples.mean(axis=0) + problem.ridge * np.append(kernel[alive].ravel(), 0 * bias)
    squares = np.cbrt(samples.var(axis=0) / batch + smooth**2)
    curvature = radial.T @ hessian(problem, kernel, bias, alive) @ radial
    return Linear(count, curvature, np.cov(projected.T, bias=True) / batch, (radial**2).T @ squares)
