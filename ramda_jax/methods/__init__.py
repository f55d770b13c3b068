"""The methods of the papers, each a chain of model builder, `proximal_point` and `iterate_averaging`."""

from ramda_jax.methods.prox_adamw import prox_adamw
from ramda_jax.methods.prox_gen import prox_gen
from ramda_jax.methods.prox_sgd import prox_sgd
from ramda_jax.methods.prox_ssi import prox_ssi
from ramda_jax.methods.ramda import ramda
from ramda_jax.methods.rmda import rmda

__all__ = ["prox_adamw", "prox_gen", "prox_sgd", "prox_ssi", "ramda", "rmda"]
