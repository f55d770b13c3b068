"""The group LASSO: whole groups at exactly zero."""

import dataclasses

from ramda_jax.regularizers.groups.norm_penalty import NormPenalty
from ramda_jax.regularizers.groups.regularizer import GroupRegularizer
from ramda_jax.typing import Scalar
from ramda_jax.validation import check_flag, check_ratio


@dataclasses.dataclass(frozen=True)
class GroupLasso(GroupRegularizer):
    """`psi(w) = sum_g omega_g ||w_g||_2`: drives whole groups to exactly zero.

    By default a group has the weights that read one input channel: the row `kernel[i, :]` of a Dense layer, the slice
    `kernel[:, :, i, :]` of a convolution. Its weight omega_g is the root of its size, as in the experiments of both
    papers. A group of the subproblem's solution is zero iff `||rhs_g|| <= weight omega_g`.

    Args:
        groups: see `GroupRegularizer`.
        group_weight: see `GroupRegularizer`.
        non_negative: whether entries must be at least 0. The minimiser is still exact: entries whose `rhs` is not
            positive are zero, and the others are those of the group LASSO of the remaining entries.

    Raises:
        ValueError: groups are an unknown name or repeated axes; group_weight is negative; at `init`, the leaf does not
            have the axes.
        TypeError: groups are not a name or axes, or group_weight is not of the kinds above.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> rows = ramda_jax.GroupLasso("input", group_weight=1.0)
        >>> kernel = jnp.array([[3.0, 4.0], [0.3, 0.4]])
        >>> rows.value(kernel)
        Array(5.5, dtype=float32)
        >>> rows.prox(kernel, 1.0)  # rows become shorter by 1, or zero
        Array([[2.4, 3.2],
               [0. , 0. ]], dtype=float32)

    References:
        Yuan and Lin, `Model selection and estimation in regression with grouped variables`, 2006.
    """

    non_negative: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("non_negative", self.non_negative)

    def norm_penalty(self, weight: Scalar, group_weight: Scalar) -> NormPenalty:
        return NormPenalty(weight * group_weight)


@dataclasses.dataclass(frozen=True)
class SparseGroupLasso(GroupRegularizer):
    """The group LASSO plus l1: whole groups at zero, and single entries within the groups that live.

        psi(w) = l1_ratio ||w||_1 + (1 - l1_ratio) sum_g omega_g ||w_g||_2

    A group of the subproblem's solution is zero iff
    `||soft_threshold(rhs_g, weight l1_ratio)|| <= weight (1 - l1_ratio) omega_g`.

    Args:
        groups: see `GroupRegularizer`.
        group_weight: see `GroupRegularizer`.
        l1_ratio: the share of l1, in [0, 1], as in scikit-learn's `ElasticNet`: 0 is `GroupLasso`, 1 is `L1`.
        non_negative: see `GroupLasso`.

    Raises:
        ValueError, TypeError: as `GroupLasso`.
        ValueError: l1_ratio is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> rows = ramda_jax.SparseGroupLasso("input", group_weight=1.0, l1_ratio=0.5)
        >>> rows.prox(jnp.array([[4.0, 5.0, 1.0], [1.0, 1.0, 1.0]]), 2.0)
        Array([[2.4, 3.2, 0. ],
               [0. , 0. , 0. ]], dtype=float32)

    References:
        Simon, Friedman, Hastie and Tibshirani, `A sparse-group lasso`, 2013.
    """

    l1_ratio: float = 0.5
    non_negative: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(self.l1_ratio)
        check_flag("non_negative", self.non_negative)

    def norm_penalty(self, weight: Scalar, group_weight: Scalar) -> NormPenalty:
        return NormPenalty(weight * group_weight)
