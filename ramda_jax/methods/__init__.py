"""The methods of the papers, each a chain of model builder, `proximal_point` and `iterate_averaging`."""

from ramda_jax.methods.ramda import ramda
from ramda_jax.methods.rmda import rmda

__all__ = ["ramda", "rmda"]
