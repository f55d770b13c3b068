"""The models of RMDA and RAMDA, written from the papers' algorithms in plain NumPy, without the library.

Algorithm 1 of Huang and Lee, ICLR 2022 (RMDA) and Algorithm 1 of Huang and Lee, NeurIPS 2024 (RAMDA), for one array, in
float64 for any input. Stages are those of the papers' experiments: at a stage's first step all sums start at zero, and
the current parameters become W_0. The schedules of the learning rate and eps count all steps.
"""

from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """The sums after one step, which define its model `<V, W> + 1/2 ||W - W0||^2_metric + weight psi(W)`."""

    t: int
    alpha: float
    V: np.ndarray
    U: np.ndarray
    W0: np.ndarray
    metric: np.ndarray
    weight: float


def trajectory(method, gradients, parameters, learning_rates, restarts=(), epsilons=None):
    """The steps of a method.

    Args:
        method: "rmda" or "ramda".
        gradients: the gradient of each step.
        parameters: the parameters before each step.
        learning_rates: eta of each step.
        restarts: the numbers of steps after which a stage ends.
        epsilons: RAMDA's eps of each step.

    Returns:
        A list of `Step`.
    """
    steps = []
    ends = {0, *restarts}
    for k, gradient in enumerate(gradients):
        g = np.asarray(gradient).astype(np.float64)
        if k in ends:
            t, alpha = 0, 0.0
            V, U = np.zeros_like(g), np.zeros_like(g)
            W0 = np.asarray(parameters[k]).astype(np.float64)
        t = t + 1
        s = learning_rates[k] * np.sqrt(t)
        alpha = alpha + s
        V = V + s * g
        U = U + s * g * g
        metric = np.full_like(g, np.sqrt(t)) if method == "rmda" else np.cbrt(U) + epsilons[k]
        steps.append(Step(t, alpha, V, U, W0, metric, alpha))
    return steps
