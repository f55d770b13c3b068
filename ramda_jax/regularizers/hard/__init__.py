"""Hard targets: psi is 0 where enough is zero, and infinite elsewhere."""

from ramda_jax.regularizers.hard.base import HardTarget
from ramda_jax.regularizers.hard.n_of_m import NofM
from ramda_jax.regularizers.hard.top import TopEntries, TopGroups

__all__ = ["HardTarget", "NofM", "TopEntries", "TopGroups"]
