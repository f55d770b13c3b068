"""The library's methods and regularizers by name, with learning rates as in the papers."""

import optax

import ramda_jax

LEARNING_RATES = {"ramda": 1e-2, "rmda": 1e-1, "prox_adamw": 1e-3, "prox_sgd": 1e-1, "prox_ssi": 1e-3}
METHODS = tuple(LEARNING_RATES)
REGULARIZERS = {
    "none": None,
    "l1": ramda_jax.L1(),
    "group_lasso": ramda_jax.GroupLasso("input"),
    "group_mcp": ramda_jax.GroupMCP("input", omega=1.0),
    "nuclear": ramda_jax.NuclearNorm(),
    "nuclear_gram": ramda_jax.NuclearNorm(gram=True),
}


def make(method, regularizer="none", strength=0.0):
    """The optimizer of these names; `adamw` is Optax's, without a regularizer."""
    if method == "adamw":
        return optax.adamw(1e-3)
    if regularizer == "none":
        return getattr(ramda_jax, method)(LEARNING_RATES[method])
    return getattr(ramda_jax, method)(LEARNING_RATES[method], REGULARIZERS[regularizer], strength)
