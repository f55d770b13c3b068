"""From the groups' norms to the groups: shared by the solvers that look for norms."""

import jax.numpy as jnp


def point_from_radii(rhs, metric, lam, radii):
    """`w_g = rhs_g / (metric + lam / r_g)`, exactly 0 where r_g = 0.

    Where r is the norm of the solution, this is the solution: it solves `metric w + lam w / r = rhs`. As
    lam / r and not as lam in the numerator's place: nothing over- or underflows that w itself does not.
    """
    is_zero = radii == 0
    shift = lam / jnp.where(is_zero, 1, radii)
    return jnp.where(is_zero, 0, rhs / (metric + shift))
