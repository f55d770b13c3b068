"""Group-sparse logistic regression: random problems, and their optimum from an independent deterministic solver.

Everything is in float64, with NumPy and SciPy and without the library. The objective of a kernel W (features, classes)
and a bias b is

    mean_i [logsumexp(z_i) - z_i[y_i]] + ridge / 2 (||W||^2 + ||b||^2) + strength * sum_j sqrt(classes) ||W[j]||,
    z_i = x_i W + b

A group is a row of W, the weights that read one feature. The ridge makes the objective strongly convex, while softmax
alone does not change if one number is added to all classes. So there is one minimiser, and a KKT residual of 0 proves
it.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax


class Problem(NamedTuple):
    """Samples and weights of one logistic regression.

    Attributes:
        inputs: (samples, features).
        labels: (samples,), class numbers.
        num_classes: the number of classes.
        ridge: weight of the squared norms.
        strength: lambda, the weight of the group LASSO.
    """

    inputs: np.ndarray
    labels: np.ndarray
    num_classes: int
    ridge: float
    strength: float

    @property
    def group_weight(self):
        """lambda sqrt(size of a group), the factor of a row's norm."""
        return self.strength * np.sqrt(self.num_classes)

    def gradient(self, kernel, bias):
        """The gradient of the smooth part, as a pair (for the kernel, for the bias)."""
        error = softmax(self.inputs @ kernel + bias, axis=1)
        error[np.arange(len(self.labels)), self.labels] -= 1
        error /= len(self.labels)
        return self.inputs.T @ error + self.ridge * kernel, error.sum(axis=0) + self.ridge * bias

    def objective(self, kernel, bias):
        log_p = log_softmax(self.inputs @ kernel + bias, axis=1)
        loss = -np.mean(log_p[np.arange(len(self.labels)), self.labels])
        squares = np.sum(kernel**2) + np.sum(bias**2)
        return loss + 0.5 * self.ridge * squares + self.group_weight * np.linalg.norm(kernel, axis=1).sum()


class Optimum(NamedTuple):
    """The minimiser, and how well its support is determined.

    Attributes:
        kernel: (features, classes), rows not in `support` exactly 0.
        bias: (classes,).
        support: (features,), a mask of the rows that are not zero.
        residual: the distance of 0 to the subdifferential.
        margin: the smallest `1 - ||gradient row|| / (lambda sqrt(size))` over zero rows: strict complementarity.
        smallest: the smallest norm of a nonzero row.
    """

    kernel: np.ndarray
    bias: np.ndarray
    support: np.ndarray
    residual: float
    margin: float
    smallest: float


def random_problem(
    seed, num_samples=1_000, num_features=40, num_active=8, num_classes=4, correlation=0.5, ridge=1e-2, strength=0.03
):
    """A random problem whose labels depend on `num_active` features only.

    Neighbouring features are correlated (`correlation ** distance`), so a feature without influence on the labels still
    affects the fit. The labels are drawn from the true model's softmax, so no fit is perfect.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_samples, num_features))
    inputs = np.empty_like(noise)
    inputs[:, 0] = noise[:, 0]
    for j in range(1, num_features):
        inputs[:, j] = correlation * inputs[:, j - 1] + np.sqrt(1 - correlation**2) * noise[:, j]
    truth = np.zeros((num_features, num_classes))
    active = rng.choice(num_features, num_active, replace=False)
    truth[active] = rng.standard_normal((num_active, num_classes))
    # The largest of the logits plus Gumbel noise is a sample from the softmax.
    labels = np.argmax(inputs @ truth + rng.gumbel(size=(num_samples, num_classes)), axis=1)
    return Problem(inputs, labels, num_classes, ridge, strength)


def kkt_residual(problem, kernel, bias):
    """The distance of 0 to the subdifferential of the objective at (kernel, bias)."""
    grad, grad_bias = problem.gradient(kernel, bias)
    norms = np.linalg.norm(kernel, axis=1, keepdims=True)
    alive = np.linalg.norm(grad + problem.group_weight * kernel / np.where(norms == 0, 1, norms), axis=1)
    dead = np.maximum(np.linalg.norm(grad, axis=1) - problem.group_weight, 0)
    return np.sqrt(np.sum(np.where(norms[:, 0] == 0, dead, alive) ** 2) + np.sum(grad_bias**2))


def solve(problem, tolerance=1e-10, max_steps=100_000):
    """The optimum, from FISTA with gradient restarts on the full data.

    Args:
        problem: a `Problem`.
        tolerance: the KKT residual at which the solver stops. The problem is strongly convex, so the distance to the
            minimiser is at most residual / ridge.
        max_steps: the largest number of iterations.

    Raises:
        RuntimeError: the residual is still above the tolerance.
    """
    n, d = problem.inputs.shape
    # The Hessian of logsumexp is at most 1/2 the identity.
    extended = np.hstack([problem.inputs, np.ones((n, 1))])
    lipschitz = 0.5 * np.linalg.norm(extended, 2) ** 2 / n + problem.ridge
    w = np.zeros((d + 1, problem.num_classes))  # the bias is the last row
    z, momentum = w, 1.0
    for step in range(max_steps):
        if step % 10 == 0 and kkt_residual(problem, w[:d], w[d]) <= tolerance:
            break
        new = z - np.vstack(problem.gradient(z[:d], z[d])) / lipschitz
        norms = np.linalg.norm(new[:d], axis=1, keepdims=True)
        threshold = problem.group_weight / lipschitz
        new[:d] *= np.maximum(norms - threshold, 0) / np.maximum(norms, threshold)
        if np.sum((z - new) * (new - w)) > 0:
            momentum = 1.0
        next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        z = new + (momentum - 1) / next_momentum * (new - w)
        w, momentum = new, next_momentum
    else:
        raise RuntimeError(f"No optimum to {tolerance} in {max_steps} steps.")
    kernel, bias = w[:d], w[d]
    norms = np.linalg.norm(kernel, axis=1)
    slopes = np.linalg.norm(problem.gradient(kernel, bias)[0], axis=1)
    return Optimum(
        kernel=kernel,
        bias=bias,
        support=norms > 0,
        residual=kkt_residual(problem, kernel, bias),
        margin=float(np.min(1 - slopes[norms == 0] / problem.group_weight, initial=1.0)),
        smallest=float(np.min(norms[norms > 0], initial=np.inf)),
    )
