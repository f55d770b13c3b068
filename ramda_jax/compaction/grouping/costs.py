"""The cost of each group: the parameters, or the operations, that are removed with it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.grouping.coupling import Coupling
from ramda_jax.compaction.grouping.parts import COUPLED
from ramda_jax.compaction.tracing.trace import Dims, check_dims
from ramda_jax.compaction.tracing.units.group_axes import group_axis_of
from ramda_jax.compaction.tracing.units.savings import savings
from ramda_jax.regularizers.groups import Grouped
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.packing import packing_of
from ramda_jax.typing import RegularizerSpec, Shape

#: Linen's collection of parameters. An optimizer usually gets the parameters without this prefix.
PARAMS = "params/"

Costs = dict[str, np.ndarray]


def costs(
    dims: Dims,
    of: Literal["parameters", "flops"] = "parameters",
    regularizer: RegularizerSpec = None,
    params: Any = None,
) -> Costs:
    """The costs of the groups, for `Target(share, of=costs(...))`, a share of parameters or FLOPs.

    The cost of a unit (a channel, a hidden unit, a head) is what its removal alone saves: its slices of all variables,
    or the operations of the products and convolutions that it is in, two for each term of a sum. If a unit is read in
    several groups, by several leaves or in the rows behind a flatten, each of them has an equal part. A group that can
    never be removed has the cost 0.

    Each unit is counted by itself. An entry that two units share, such as that of a kernel between two layers, is in
    the cost of both, so the sum of all costs is larger than the model. A share of costs is close to the share that is
    removed if both are small, or if all layers shrink alike. The report has the exact share.

    Args:
        dims: from `trace_dims`.
        of: `"parameters"`, the entries of all variables; or `"flops"`, of one call with the example arguments.
        regularizer: the specification that the optimizer is given; None for that of `groups(dims)`. With the
            regularizer of a coupling the result has the costs of its coupled groups.
        params: the parameters that the optimizer is given, if they are a part of the variables; the costs are by their
            paths. None for all traced leaves; for linen those in `params`.

    Returns:
        A dict from the paths of leaves with groups to arrays shaped as the groups' norms.

    Raises:
        CompactionError: a coupling or parameters of another model.
        ValueError: an unknown `of`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ramda_jax.compaction import trace_dims
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 4)), "out": jnp.ones((4, 3))}
        >>> costs(trace_dims(mlp, params, jnp.ones((1, 5))))["out"].ravel()
        array([8., 8., 8., 8.])
    """
    check_dims(dims)
    if of not in ("parameters", "flops"):
        raise ValueError(f"`of` must be 'parameters' or 'flops', got {of!r}; use one of these.")
    saved = savings(dims, of)
    packing: Any = packing_of(regularizer)
    if packing is not None:
        return {f"{COUPLED}/{name}": found[:, None] for name, found in coupled_costs(dims, packing, saved).items()}
    shapes = {path: value.shape for path, value in dims.leaves.items()}
    names = {path: path for path in shapes} if params is None else dims.own_paths(params)
    if regularizer is None:
        chosen = group_axis_of(dims)
        axes = {path: (axis,) for path, axis in chosen.items() if path in names}
    else:
        leaves = {name: jax.ShapeDtypeStruct(shapes[path], np.float32) for path, name in names.items()}
        given = {
            name: resolved.groups for name, _, resolved in assign(regularizer, leaves) if isinstance(resolved, Grouped)
        }
        axes = {path: given[name] for path, name in names.items() if name in given}
    found = leaf_costs(dims, axes, saved)
    if params is None and all(path.startswith(PARAMS) for path in found):
        names = {path: path.removeprefix(PARAMS) for path in found}
    return {names[path]: array for path, array in found.items()}


def leaf_costs(dims: Dims, axes: Mapping[str, Any], saved: np.ndarray) -> Costs:
    """The cost of each group of leaves, by traced paths, for groups along `axes`."""
    units = dims.units
    removable = units.removable(axes)
    read = {
        (path, axis): units.on_axis[path, axis]
        for path, along in axes.items()
        for axis in along
        if (path, axis) in units.on_axis and units.is_read(path, axis)
    }
    # The number of groups that each unit is in.
    number = np.zeros(dims.nodes.count)
    for (path, axis), (_, nodes) in read.items():
        shape = dims.leaves[path].shape
        np.add.at(number, nodes, math.prod(shape[other] for other in axes[path] if other != axis))
    worth = np.where(removable & (number > 0), saved / np.maximum(number, 1), 0)
    result = {}
    for path, along in axes.items():
        shape = dims.leaves[path].shape
        array = np.zeros(_norms_shape(shape, along))
        for axis in along:
            if (path, axis) in read:
                positions, nodes = read[path, axis]
                own = np.zeros(shape[axis])
                np.add.at(own, positions, worth[nodes])
                array = array + own.reshape([-1 if other == axis else 1 for other in range(len(shape))])
        result[path] = array
    return result


def coupled_costs(dims: Dims, coupling: Coupling, saved: np.ndarray) -> Costs:
    """The cost of each coupled group, by the names of the widths."""
    return {name: saved[nodes] for name, nodes in coupled_widths(dims, coupling).items()}


def coupled_widths(dims: Dims, coupling: Coupling) -> dict[str, np.ndarray]:
    """The nodes of each coupled group, by the names of the widths.

    Raises:
        CompactionError: a coupling of another model.
    """
    widths = {width.name: width for width in dims.widths}
    for name, parts in coupling.parts.items():
        if name not in widths or len(parts[0].rows) != widths[name].size:
            raise CompactionError(
                f"The coupling must be of the model that was traced, but {name} is not; make it by `couple(dims, ...)`."
            )
    return {name: widths[name].nodes for name in coupling.parts}


def root_weight(found: np.ndarray) -> Any:
    """The group weights for costs: their roots, or a single number if all are equal."""
    roots = np.sqrt(found)
    return float(roots.flat[0]) if roots.size and np.ptp(roots) == 0 else roots


def _norms_shape(shape: Shape, along: Sequence[int]) -> Shape:
    return tuple(size if axis in along else 1 for axis, size in enumerate(shape))
