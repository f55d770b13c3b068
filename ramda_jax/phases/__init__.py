"""Training in two phases: one method finds the zeros, and an optimizer trains the nonzero parameters."""

from ramda_jax.phases.hold_zeros import HoldZerosState, hold_zeros
from ramda_jax.phases.ramda_then_hold import ramda_then_hold

__all__ = ["HoldZerosState", "hold_zeros", "ramda_then_hold"]
