"""The papers' measures of how much is exactly zero. Each function takes the optimizer's own regularizer."""

from typing import Protocol, cast

import jax
import jax.numpy as jnp

from ramda_jax.numerics import count, exact_count, total
from ramda_jax.numerics.counts import MOST
from ramda_jax.structure.assignment import regularized_leaves
from ramda_jax.structure.paths import named_leaves
from ramda_jax.tables import text_table
from ramda_jax.typing import RegularizerSpec, Tree
from ramda_jax.validation import check_arrays, check_params, check_real_number


class _HasSingularValues(Protocol):
    """A regularizer whose `support` has the singular values, and takes a tolerance."""

    def support(self, w: jax.Array, rtol: float | None = None) -> jax.Array: ...


def _share(zeros, most):
    """The sum of the counts `zeros`, divided by `most`."""
    return jnp.asarray(total(zeros, most).astype(float) / float(most) if most else 0.0)


def group_sparsity(regularizer: RegularizerSpec, params: Tree) -> jax.Array:
    """The share of groups that are exactly zero; all groups count the same.

        1 - (number of groups with a nonzero) / (number of groups)

    Args:
        regularizer: the specification that the optimizer was given.
        params: the parameters, or the result of `eval_params`.

    Returns:
        A scalar array in [0, 1], over the regularized leaves; 0 if there are none.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"kernel": jnp.array([[0.0, 0.0], [0.0, 1.0]])}
        >>> print(ramda_jax.metrics.group_sparsity(ramda_jax.GroupLasso(), params))
        0.5

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398 ("structured sparsity" of the released code).
    """
    # A leaf of size 0, as a compacted model may have, has no groups that count.
    leaves = [(leaf, given) for _, leaf, given in regularized_leaves(regularizer, params) if leaf.size]
    supports = [given.support(leaf) for leaf, given in leaves]
    return _share([count(~alive) for alive in supports], sum(alive.size for alive in supports))


def weighted_group_sparsity(regularizer: RegularizerSpec, params: Tree) -> jax.Array:
    """The share of regularized entries in groups that are exactly zero: the NeurIPS paper's measure.

        1 - sum_g [g has a nonzero] |g| / sum_g |g|

    Args, returns: as `group_sparsity`.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"a": {"kernel": jnp.zeros((1, 6))}, "b": {"kernel": jnp.ones((1, 2))}}
        >>> print(ramda_jax.metrics.weighted_group_sparsity(ramda_jax.GroupLasso(), params))
        0.75

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, section 6.
    """
    zeros, most = [], 0
    for _, leaf, given in regularized_leaves(regularizer, params):
        number, size = count(~given.support(leaf)), given.sizes(leaf.shape)
        zeros.append(total([number], leaf.size) * (size if leaf.size <= MOST else float(size)))
        most += leaf.size
    return _share(zeros, most)


def kernel_sparsity(regularizer: RegularizerSpec, params: Tree) -> jax.Array:
    """The share of kernels that are exactly zero, the measure of the ICLR paper.

    In a leaf of three axes or more a kernel is one spatial slice, `leaf[..., i, o]`, independent of the groups. In
    other leaves the regularizer's groups count (the columns of the paper's linear layers).

    Args, returns: as `group_sparsity`.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"kernel": jnp.ones((3, 3, 1, 4)).at[..., 0, 0].set(0)}
        >>> print(ramda_jax.metrics.kernel_sparsity(ramda_jax.GroupLasso(), params))
        0.25

    References:
        Huang and Lee, ICLR 2022, arXiv:2112.02612, section 5.
    """
    supports = []
    for _, leaf, given in regularized_leaves(regularizer, params):
        supports.append(jnp.any(leaf != 0, axis=tuple(range(leaf.ndim - 2))) if leaf.ndim > 2 else given.support(leaf))
    return _share([count(~alive) for alive in supports], sum(alive.size for alive in supports))


def unstructured_sparsity(regularizer: RegularizerSpec, params: Tree, regularized_only: bool = False) -> jax.Array:
    """The share of single entries that are exactly zero.

        1 - nnz / number of entries

    Args:
        regularizer: the specification that the optimizer was given.
        params: the parameters, or the result of `eval_params`.
        regularized_only: whether only the regularized leaves count. By default all parameters count, with biases, as in
            the papers' released code.

    Returns:
        A scalar array in [0, 1].

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))}
        >>> print(ramda_jax.metrics.unstructured_sparsity(ramda_jax.GroupLasso(), params))
        0.25
    """
    if regularized_only:
        leaves = [leaf for _, leaf, _ in regularized_leaves(regularizer, params)]
    else:
        named = named_leaves(params)
        check_arrays("Parameters", named)
        leaves = [leaf for _, leaf in named]
    return _share([count(leaf == 0) for leaf in leaves], sum(leaf.size for leaf in leaves))


def low_rank_level(regularizer: RegularizerSpec, params: Tree, rtol: float | None = None) -> jax.Array:
    """The share of singular values that are zero, over all leaves with a nuclear norm.

        1 - (number of nonzero singular values) / (number of singular values)

    The released code measures it on W_hat: pass the result of `eval_params`. The iterate itself is W + (W_hat - W). Its
    rounding error has full rank, so only its numerical rank is small.

    Args:
        regularizer: the specification that the optimizer was given.
        params: the parameters, or the result of `eval_params`.
        rtol: singular values of at most rtol times the largest count as zero; None for NumPy's rule, the larger side
            times the machine eps of the leaf's dtype.

    Returns:
        A scalar array in [0, 1]; 0 if no leaf has a nuclear norm.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"kernel": jnp.ones((4, 5))}
        >>> print(ramda_jax.metrics.low_rank_level(ramda_jax.NuclearNorm(), params))
        0.75

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, appendix E, which does not define it; the formula is that
        of the released code.
    """
    ranks, most = [], 0
    for alive, size in _ranks(regularizer, params, rtol).values():
        ranks.append(size - alive)
        most += size
    return _share(ranks, most)


def numerical_rank(regularizer: RegularizerSpec, params: Tree, rtol: float | None = None) -> dict[str, jax.Array]:
    """The numerical rank of every leaf with a nuclear norm.

    Args: as `low_rank_level`.

    Returns:
        A dict from paths to int32 scalars.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> {path: int(rank) for path, rank in ramda_jax.metrics.numerical_rank(
        ...     ramda_jax.NuclearNorm(), {"kernel": jnp.ones((4, 5))}).items()}
        {'kernel': 1}
    """
    return {path: rank for path, (rank, _) in _ranks(regularizer, params, rtol).items()}


def _ranks(regularizer, params, rtol):
    if rtol is not None:
        check_real_number("rtol", rtol, "use None for the rounding of an SVD.")
    result = {}
    for path, leaf, given in regularized_leaves(regularizer, params):
        if given.support_counts == "singular values":
            check_params([(path, leaf)])
            alive = cast("_HasSingularValues", given).support(leaf, rtol)
            result[path] = (jnp.sum(alive), alive.size)
    return result


def layer_table(regularizer: RegularizerSpec, params: Tree) -> str:
    """A table as text: alive and total groups of every regularized leaf.

    Args:
        regularizer: the specification that the optimizer was given.
        params: the parameters, or the result of `eval_params`.

    Returns:
        A line for each regularized leaf and one for the total. The total sparsity is weighted by size.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"dense": {"bias": jnp.zeros(2), "kernel": jnp.array([[0.0, 0.0], [0.0, 1.0]])}}
        >>> print(ramda_jax.metrics.layer_table(ramda_jax.GroupLasso(), params))
        leaf          alive  groups  sparsity
        dense/kernel      1       2    50.0 %
        total             1       2    50.0 %
    """
    rows = []
    for path, leaf, given in regularized_leaves(regularizer, params):
        alive = given.support(leaf)
        rows.append((path or "(the array)", exact_count(alive), alive.size if leaf.size else 0))
    share = 100 * float(weighted_group_sparsity(regularizer, params))
    lines = [(path, alive, total, 100 * (1 - alive / total) if total else 0.0) for path, alive, total in rows]
    lines.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows), share))
    cells = [(path, str(alive), str(total), f"{sparsity:.1f} %") for path, alive, total, sparsity in lines]
    return "\n".join(text_table([("leaf", "alive", "groups", "sparsity"), *cells], right=(1, 2, 3)))


def objective(
    regularizer: RegularizerSpec, params: Tree, loss: jax.typing.ArrayLike, strength: jax.typing.ArrayLike
) -> jax.Array:
    """The regularized objective `loss + strength * psi(params)`, psi over all regularized leaves.

    Args:
        regularizer: the specification that the optimizer was given.
        params: the parameters, or the result of `eval_params`.
        loss: the loss at params, a scalar.
        strength: lambda, a number.

    Returns:
        A scalar array.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"kernel": jnp.array([[3.0, 4.0]])}
        >>> print(ramda_jax.metrics.objective(ramda_jax.GroupLasso(group_weight=1.0), params, 1.0, 0.1))
        1.5
    """
    check_real_number("loss", loss, "give the loss at these parameters.")
    check_real_number("strength", strength, "give the number that a schedule has at this step.")
    leaves = regularized_leaves(regularizer, params)
    check_params([(path, leaf) for path, leaf, _ in leaves])
    if not leaves:
        return jnp.asarray(loss)
    psi = sum(given.value(leaf) for _, leaf, given in leaves)
    return jnp.asarray(loss + strength * psi)
