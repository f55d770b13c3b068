"""Regularizers written from their definitions, without the library: value, subdifferential, conjugate.

Each class has

    value(w)                          psi(w)
    distances(w, slope, weight)       for every block of psi the distance of slope to weight times the (limiting)
                                      subdifferential of psi at w; broadcasts against w
    block_norms(x)                    ||x||, block by block, of that shape
    conjugate(y, weight, slack)       for convex psi: sup_w <y, w> - weight psi(w); slack is a distance of y from the
                                      domain that counts as rounding
    is_zero(rhs, metric, weight)      whether w = 0 minimises 1/2 ||w||^2_metric - <rhs, w> + weight psi(w)

in NumPy's widest float where that is possible (not for singular values).
"""

import itertools

import numpy as np

SLACK = 1e-10  # a point this near to a set's border counts as on the border, for float64


def wide(x):
    return np.asarray(x).astype(np.longdouble)


def norm(x):
    return np.sqrt(np.sum(wide(x) ** 2))


def objective(psi, w, rhs, metric, weight):
    """The objective `1/2 ||w||^2_metric - <rhs, w> + weight psi(w)`."""
    w = wide(w)
    return np.sum(w * (wide(metric) * w / 2 - wide(rhs))) + wide(weight) * psi.value(w)


def kkt_distances(psi, w, rhs, metric, weight):
    """The distance of 0 to the subdifferential of `objective` at w, block by block."""
    return psi.distances(wide(w), wide(rhs) - wide(metric) * wide(w), wide(weight))


def largest_weight(psi, rhs, metric):
    """The smallest weight for which w = 0 is a minimiser, by bisection to the last bit of float64."""
    low, high = 0.0, 1e-30
    while not psi.is_zero(rhs, metric, high):
        high *= 10
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return high
        low, high = (low, middle) if psi.is_zero(rhs, metric, middle) else (middle, high)


class Entries:
    """The common part of psi that are sums over entries."""

    def block_norms(self, x):
        return np.abs(wide(x))

    def near(self, w, eps):
        """A point within rounding of w with exact structure: w itself, except for the nuclear norm."""
        del eps
        return wide(w)


class L1(Entries):
    def __init__(self, factor=1.0, non_negative=False):
        self.factor, self.non_negative = factor, non_negative

    def size(self, x):
        return x if self.non_negative else np.abs(x)

    def value(self, w):
        if self.non_negative and np.any(w < 0):
            return np.inf
        return self.factor * np.sum(np.abs(wide(w)))

    def distances(self, w, slope, weight):
        lam = weight * self.factor
        at_zero = np.maximum(self.size(slope) - lam, 0)
        distance = np.where(w == 0, at_zero, np.abs(slope - lam * np.sign(w)))
        return np.where(self.non_negative & (w < 0), np.inf, distance)

    def conjugate(self, y, weight, slack):
        lam = weight * self.factor
        return 0.0 if np.max(self.size(y)) <= lam + slack else np.inf

    def is_zero(self, rhs, metric, weight):
        return bool(np.max(self.size(wide(rhs))) <= weight * self.factor)


class MCP(Entries):
    """The sum over entries of `integral of max(1 - t / omega, 0) from 0 to |w|`."""

    def __init__(self, omega):
        self.omega = omega

    def value(self, w):
        w = np.minimum(np.abs(wide(w)), self.omega)
        return np.sum(w - w**2 / (2 * self.omega))

    def distances(self, w, slope, weight):
        at_zero = np.maximum(np.abs(slope) - weight, 0)
        pull = weight * np.maximum(1 - np.abs(w) / self.omega, 0) * np.sign(w)
        return np.where(w == 0, at_zero, np.abs(slope - pull))

    def is_zero(self, rhs, metric, weight):
        rhs, metric = np.abs(wide(rhs)), np.broadcast_to(wide(metric), np.shape(rhs))
        # Compare 0 with the minimiser of the flat part, which is a minimiser only if it lies on the flat part.
        is_flat = rhs / metric >= self.omega
        wins = rhs**2 / metric <= weight * self.omega
        return bool(np.all((rhs <= weight) & (wins | ~is_flat)))


class Groups:
    """`l1_ratio ||w||_1 + (1 - l1_ratio) sum_g p(||w_g||)`; p is `weight_g r`, or its MCP if `omega` is given.

    Args:
        inside: the axes inside a group.
        group_weight: weight_g, a number or an array with one number per group.
        omega: None for the group LASSO; else MCP's omega, so that the derivative of p is `weight_g - r / omega` below
            the knee.
        l1_ratio: the share of the l1 norm.
        non_negative: whether psi is infinite if an entry is negative.
    """

    def __init__(self, inside, group_weight, omega=None, l1_ratio=0.0, non_negative=False):
        self.inside, self.group_weight, self.omega, self.l1_ratio = inside, group_weight, omega, l1_ratio
        self.non_negative = non_negative

    def beyond(self, slope, lam):
        """The distance of a zero entry's slope from the interval that the l1 norm and the sign constraint allow."""
        return np.maximum((slope if self.non_negative else np.abs(slope)) - lam, 0)

    def near(self, w, eps):
        del eps
        return wide(w)

    def block_norms(self, x):
        return np.sqrt(np.sum(wide(x) ** 2, axis=self.inside, keepdims=True))

    def penalty(self, r):
        if self.omega is None:
            return self.group_weight * r
        r = np.minimum(r, self.omega * self.group_weight)
        return self.group_weight * r - r**2 / (2 * self.omega)

    def derivative(self, r):
        if self.omega is None:
            return self.group_weight + 0 * r
        return np.maximum(self.group_weight - r / self.omega, 0)

    def value(self, w):
        if self.non_negative and np.any(w < 0):
            return np.inf
        groups = np.sum(self.penalty(self.block_norms(w)))
        return self.l1_ratio * np.sum(np.abs(wide(w))) + (1 - self.l1_ratio) * groups

    def distances(self, w, slope, weight):
        lam1, lam2 = weight * self.l1_ratio, weight * (1 - self.l1_ratio)
        radii = self.block_norms(w)
        # A zero group is stationary if slope = u + v with |u| <= lam1 entry by entry and ||v|| <= lam2 weight_g.
        left = self.block_norms(self.beyond(slope, lam1))
        at_zero = np.maximum(left - lam2 * self.group_weight, 0)
        direction = w / np.where(radii == 0, 1, radii)
        entries = slope - lam2 * self.derivative(radii) * direction - lam1 * np.sign(w)
        entries = np.where(w == 0, self.beyond(slope, lam1), np.abs(entries))
        entries = np.where(self.non_negative & (w < 0), np.inf, entries)
        return np.where(radii == 0, at_zero, self.block_norms(entries))

    def conjugate(self, y, weight, slack):
        y = wide(y)
        left = self.block_norms(self.beyond(y, weight * self.l1_ratio))
        limit = weight * (1 - self.l1_ratio) * self.group_weight
        return 0.0 if np.all(left <= limit + slack) else np.inf

    def is_zero(self, rhs, metric, weight):
        rhs, metric = wide(rhs), np.broadcast_to(wide(metric), np.shape(rhs))
        rhs = self.beyond(rhs, weight * self.l1_ratio)
        weight = weight * (1 - self.l1_ratio)
        is_stationary = self.block_norms(rhs) <= weight * self.group_weight
        if self.omega is None:
            return bool(np.all(is_stationary))
        is_flat = self.block_norms(rhs / metric) >= self.omega * self.group_weight
        gain = np.sum(rhs**2 / metric, axis=self.inside, keepdims=True)
        return bool(np.all(is_stationary & (~is_flat | (gain <= weight * self.omega * self.group_weight**2))))


class Scaled:
    """`factor * psi`."""

    def __init__(self, psi, factor):
        self.psi, self.factor = psi, factor

    def near(self, w, eps):
        return self.psi.near(w, eps)

    def block_norms(self, x):
        return self.psi.block_norms(x)

    def value(self, w):
        return self.factor * self.psi.value(w)

    def distances(self, w, slope, weight):
        return self.psi.distances(w, slope, self.factor * weight)

    def conjugate(self, y, weight, slack):
        return self.psi.conjugate(y, self.factor * weight, slack)

    def is_zero(self, rhs, metric, weight):
        return self.psi.is_zero(rhs, metric, self.factor * weight)


class Leaf:
    """The common part of psi of a whole leaf."""

    def near(self, w, eps):
        del eps
        return wide(w)

    def block_norms(self, x):
        return norm(x)


class NuclearNorm(Leaf):
    """The sum of the singular values of w as a matrix with `rows` rows."""

    def __init__(self, rows, factor=1.0):
        self.rows, self.factor = rows, factor

    def matrix(self, w):
        return np.asarray(w, np.float64).reshape(self.rows, -1)

    def near(self, w, eps):
        u, s, vt = np.linalg.svd(self.matrix(w), full_matrices=False)
        s = np.where(s > 4 * eps * max(self.matrix(w).shape) * np.max(s), s, 0)
        return ((u * s) @ vt).reshape(np.shape(w))

    def value(self, w):
        return self.factor * np.sum(np.linalg.svd(self.matrix(w), compute_uv=False))

    def distances(self, w, slope, weight):
        lam = float(weight) * self.factor
        w, slope = self.matrix(w), self.matrix(slope)
        u, s, vt = np.linalg.svd(w)
        rank = int(np.sum(s > 1e-13 * max(w.shape) * np.max(s)))
        # In the bases of all singular vectors a subgradient is I on the block of the rank, and any matrix with a
        # spectral norm of at most 1 on the last block.
        rotated = u.T @ slope @ vt.T
        rotated[np.arange(rank), np.arange(rank)] -= lam
        last = np.linalg.svd(rotated[rank:, rank:], compute_uv=False)
        rotated[rank:, rank:] = 0
        return np.sqrt(np.sum(rotated**2) + np.sum(np.maximum(last - lam, 0) ** 2))

    def conjugate(self, y, weight, slack):
        largest = np.linalg.norm(self.matrix(y), 2)
        return 0.0 if largest <= weight * self.factor + slack else np.inf

    def is_zero(self, rhs, metric, weight):
        return bool(np.linalg.norm(self.matrix(rhs), 2) <= weight * self.factor)


class Box(Entries):
    def __init__(self, lower, upper):
        self.lower, self.upper = lower, upper

    def value(self, w):
        return 0.0 if np.all((w >= self.lower) & (w <= self.upper)) else np.inf

    def distances(self, w, slope, weight):
        distance = np.abs(slope)
        distance = np.where(w == self.lower, np.maximum(slope, 0), distance)
        distance = np.where(w == self.upper, np.maximum(-slope, 0), distance)
        return np.where((w < self.lower) | (w > self.upper), np.inf, distance)

    def conjugate(self, y, weight, slack):
        y = wide(y)
        bound = np.where(y > 0, self.upper, self.lower)
        return np.sum(np.where(np.abs(y) <= slack, 0, bound * y))


class Levels(Entries):
    """The sum over entries of the distance to the nearest level."""

    def __init__(self, levels, dtype=np.float64):
        self.levels = wide(np.asarray(levels, dtype))

    def value(self, w):
        return np.sum(np.min(np.abs(wide(w)[..., None] - self.levels), axis=-1))

    def distances(self, w, slope, weight):
        gaps = wide(w)[..., None] - self.levels
        nearest = np.min(np.abs(gaps), axis=-1, keepdims=True)
        # If two levels are equally near, the slopes of both are limits of slopes.
        sides = np.where(np.abs(gaps) == nearest, np.abs(slope[..., None] - weight * np.sign(gaps)), np.inf)
        return np.where(nearest[..., 0] == 0, np.maximum(np.abs(slope) - weight, 0), np.min(sides, axis=-1))


class Supports:
    """In each part of a leaf, one of several masks must cover all nonzero entries.

    Args:
        parts: for each part a list of masks of the leaf's shape, each of a set of entries that may be alive.
    """

    def __init__(self, parts):
        self.parts = [np.array(masks) for masks in parts]

    @classmethod
    def of_blocks(cls, labels, alive, parts=None):
        """At most `alive` blocks may be alive, in each part. `labels` and `parts` number the blocks and the parts."""
        parts = np.zeros_like(labels) if parts is None else parts
        return cls(
            [np.isin(labels, chosen) & (parts == part) for chosen in itertools.combinations(within, alive)]
            for part in np.unique(parts)
            for within in [np.unique(labels[parts == part])]
        )

    def near(self, w, eps):
        del eps
        return wide(w)

    def block_norms(self, x):
        return np.array([norm(np.where(np.any(masks, axis=0), x, 0)) for masks in self.parts])

    def fits(self, masks, w):
        """A mask over a part's masks: which of them cover the alive entries of w."""
        part = np.any(masks, axis=0)
        return np.array([not np.any((w != 0) & part & ~mask) for mask in masks])

    def value(self, w):
        return 0.0 if all(np.any(self.fits(masks, w)) for masks in self.parts) else np.inf

    def distances(self, w, slope, weight):
        # Limiting normals are 0 on one of the masks that fit.
        return np.array(
            [
                min((norm(np.where(mask, slope, 0)) for mask in masks[self.fits(masks, w)]), default=np.inf)
                for masks in self.parts
            ]
        )

    def most(self, rhs, metric):
        """The largest decrease of the quadratic from w = 0 that a support allows; the minimiser reaches it."""
        gains = wide(rhs) ** 2 / wide(metric) / 2
        return sum(max(np.sum(np.where(mask, gains, 0)) for mask in masks) for masks in self.parts)


class Null(Entries):
    def value(self, w):
        return 0.0

    def distances(self, w, slope, weight):
        return np.abs(slope)

    def conjugate(self, y, weight, slack):
        return 0.0 if np.all(np.abs(y) <= slack) else np.inf


class NonNegative(Entries):
    def value(self, w):
        return 0.0 if np.all(w >= 0) else np.inf

    def distances(self, w, slope, weight):
        return np.where(w < 0, np.inf, np.where(w == 0, np.maximum(slope, 0), np.abs(slope)))

    def conjugate(self, y, weight, slack):
        return 0.0 if np.all(y <= slack) else np.inf


class Simplex(Leaf):
    """Points w >= 0 with the sum 1."""

    def value(self, w):
        return 0.0 if np.all(w >= 0) and abs(np.sum(w) - 1) <= self.slack else np.inf

    def __init__(self, slack=SLACK):
        self.slack = slack

    def distances(self, w, slope, weight):
        if self.value(w) > 0:
            return np.inf

        # Normals are tau on the support and at most tau elsewhere. Bisection of the derivative finds the best tau.
        def gaps(tau):
            return np.where(w > 0, slope - tau, np.maximum(slope - tau, 0))

        low, high = np.min(slope) - 1, np.max(slope) + 1
        for _ in range(200):
            tau = (low + high) / 2
            low, high = (tau, high) if np.sum(gaps(tau)) > 0 else (low, tau)
        return norm(gaps((low + high) / 2))

    def conjugate(self, y, weight, slack):
        return np.max(y)


class L1Ball(Leaf):
    def __init__(self, radius, slack=SLACK):
        self.radius, self.slack = radius, slack

    def value(self, w):
        return 0.0 if np.sum(np.abs(w)) <= self.radius * (1 + self.slack) else np.inf

    def distances(self, w, slope, weight):
        if self.value(w) > 0:
            return np.inf
        if np.sum(np.abs(w)) < self.radius * (1 - self.slack):
            return norm(slope)

        def gaps(mu):
            return np.where(w == 0, np.maximum(np.abs(slope) - mu, 0), np.abs(slope - mu * np.sign(w)))

        def derivative(mu):
            return np.sum(np.where(w == 0, np.minimum(mu - np.abs(slope), 0), mu - slope * np.sign(w)))

        low, high = wide(0), np.max(np.abs(slope))
        for _ in range(200):
            mu = (low + high) / 2
            low, high = (mu, high) if derivative(mu) < 0 else (low, mu)
        return norm(gaps((low + high) / 2))

    def conjugate(self, y, weight, slack):
        return self.radius * np.max(np.abs(y))


class L2Ball(Leaf):
    """The ball of radius 1, or the sphere."""

    def __init__(self, is_sphere=False, slack=SLACK):
        self.is_sphere, self.slack = is_sphere, slack

    def value(self, w):
        excess = norm(w) - 1
        return 0.0 if (abs(excess) if self.is_sphere else excess) <= self.slack else np.inf

    def distances(self, w, slope, weight):
        if self.value(w) > 0:
            return np.inf
        if not self.is_sphere and norm(w) < 1 - self.slack:
            return norm(slope)
        along = np.sum(slope * w) / np.sum(w**2)
        return norm(slope - (along if self.is_sphere else max(along, 0)) * w)

    def conjugate(self, y, weight, slack):
        return norm(y)


class HalfSpace(Leaf):
    """Points with `<normal, w> <= offset`."""

    def __init__(self, normal, offset, slack=SLACK):
        self.normal, self.offset, self.slack = wide(normal), offset, slack

    def value(self, w):
        return 0.0 if np.sum(self.normal * w) <= self.offset + self.slack * norm(w) else np.inf

    def distances(self, w, slope, weight):
        if self.value(w) > 0:
            return np.inf
        if np.sum(self.normal * w) < self.offset - self.slack * norm(w):
            return norm(slope)
        along = max(np.sum(slope * self.normal) / np.sum(self.normal**2), 0)
        return norm(slope - along * self.normal)

    def conjugate(self, y, weight, slack):
        along = np.sum(y * self.normal) / np.sum(self.normal**2)
        is_along = norm(y - along * self.normal) <= slack and along >= -slack
        return along * self.offset if is_along else np.inf
