"""The coupled groups of a net: their weights, the best of them, and the number of parameters that they leave."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.alternatives.problems import Problem
from ramda_jax import Target, compaction


class Groups:
    """The coupled groups of a problem's net, weighted by their savings. All methods use these groups.

    Attributes:
        problem: the problem.
        example: one input.
        coupling, regularizer: the coupling of the groups, and its regularizer.
        removed: a function from masks of the alive groups to the removed share of the parameters.
        sizes: the number of entries of a group, by width.
        whole: the number of parameters of the net.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        params = problem.initial(jax.random.key(0))
        self.example, _ = problem.batch(problem.data["train"], jnp.arange(1))
        self.dims = compaction.trace_dims(problem.traced, params, self.example)
        self.coupling = compaction.couple_model(problem.traced, self.example, variables=params, weight="saving")
        self.regularizer = self.coupling.regularizer()
        self.removed = compaction.share_removed(self.dims, "parameters", self.regularizer)
        self.sizes = {name: leaf.shape[1] for name, leaf in self.coupling.pack(params)["coupled"].items()}
        # For each axis of a leaf: the number of rows that always stay, the width, and its rows by index.
        self._axes = {path: [[size, None, None] for size in leaf.shape] for path, leaf in self.dims.leaves.items()}
        for width in self.dims.widths:
            if width.name in self.coupling.parts:
                for member in width.members:
                    axis = self._axes[member.path][member.axis]
                    rows = np.bincount(member.index[member.index >= 0], minlength=width.size)
                    axis[:] = [axis[0] - int(rows.sum()), width.name, rows]
        self.whole = self.count({name: np.ones(len(part[0].rows), bool) for name, part in self.coupling.parts.items()})

    def count(self, alive):
        """The number of parameters of the net with these groups; `alive` has a mask for each width."""
        total = 0
        for axes in self._axes.values():
            total += np.prod([left + (rows @ alive[name] if name else 0) for left, name, rows in axes], dtype=int)
        return int(total)

    def norms(self, params):
        """The norms of the groups, by width."""
        packed = self.coupling.pack(params)["coupled"]
        return {name: np.asarray(jnp.linalg.norm(leaf, axis=1)) for name, leaf in packed.items()}

    def by_size(self, params):
        """The root of the mean square of each group's entries."""
        return {name: norms / np.sqrt(self.sizes[name]) for name, norms in self.norms(params).items()}

    def by_saving(self, params):
        """The norm of each group over the root of the parameters that are removed with it."""
        weights = self.coupling.weights or {}
        return {name: norms / weights[name] for name, norms in self.norms(params).items()}

    def best(self, scores, keep, over):
        """The groups with the highest scores, as many as fit into a share `keep` of the parameters.

        Args:
            scores: the groups' scores, by width.
            keep: a share of the parameters.
            over: "all" compares over all widths, "layer" keeps the same share of each width. Each width keeps a group.
        """
        names = list(scores)
        order = {name: np.argsort(np.argsort(-scores[name], kind="stable")) for name in names}
        if over == "layer":
            places = {name: (order[name] + 0.5) / len(order[name]) for name in names}
        else:
            everything = np.concatenate([scores[name] for name in names])
            ranks = np.argsort(np.argsort(-everything, kind="stable")) / len(everything)
            parts = np.split(ranks, np.cumsum([len(scores[name]) for name in names])[:-1])
            places = dict(zip(names, parts, strict=True))

        def taken(border):
            return {name: (places[name] <= border) | (order[name] == 0) for name in names}

        borders = np.unique(np.concatenate(list(places.values())))
        low, high = -1, len(borders) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.count(taken(borders[middle])) <= keep * self.whole:
                low = middle
            else:
                high = middle - 1
        return taken(borders[low] if low >= 0 else -1.0)

    def trimmed(self, params, keep):
        """The nonzero groups, without the shortest ones if more than a share `keep` would be left."""
        scores = self.by_saving(params)
        alive = {name: one > 0 for name, one in scores.items()}
        if self.count(alive) <= keep * self.whole:
            return alive
        best = self.best(scores, keep, "all")
        return {name: alive[name] & best[name] for name in alive}

    def held(self, params, alive):
        """The parameters with the groups that are not `alive` set to zero."""
        packed = self.coupling.pack(params)
        coupled = {name: jnp.where(alive[name][:, None], leaf, 0) for name, leaf in packed["coupled"].items()}
        return self.coupling.unpack(packed | {"coupled": coupled}, params)

    def small(self, params, alive):
        """The parameters of the small net that computes the same."""
        params = self.held(params, alive)
        return compaction.compact(compaction.plan_compaction(self.dims, params), params)

    def flops(self, small):
        """The FLOPs of the small net for one input."""
        return compaction.cost(self.problem.traced, small, self.example).flops

    def target(self, share: Any, **settings: Any) -> Target:
        """The `Target` for this share of removed parameters: a number, a traced number or a schedule."""
        return Target(share, of=self.removed, **settings)
