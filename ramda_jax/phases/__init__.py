"""Training in two phases: one method finds the zeros, another trains what is left."""

from ramda_jax.phases.hold_zeros import HoldZerosState, hold_zeros
from ramda_jax.phases.ramda_then_hold import ramda_then_hold

__all__ = ["HoldZerosState", "hold_zeros", "ramda_then_hold"]
