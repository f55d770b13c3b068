"""The result of `compact_model` can report and save itself."""

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax import compaction


def mlp(params, x):
    return jax.nn.relu(x @ params["in"]) @ params["out"]


PARAMS = {"in": jnp.arange(40.0).reshape(5, 8), "out": jnp.ones((8, 3)).at[2:].set(0)}
BATCH = jnp.ones((4, 5))


def test_the_methods_are_the_functions_on_its_own_parts(tmp_path):
    small = compaction.compact_model(mlp, BATCH, variables=PARAMS)
    report = small.report(BATCH, rounds=0)
    assert report.removed_params == compaction.compaction_report(small, BATCH, rounds=0).removed_params == 0.75
    small.save(tmp_path)
    plan, variables = compaction.load_compact(tmp_path, like=small.variables)
    assert plan.to_json() == small.plan.to_json()
    for found, expected in zip(jax.tree.leaves(variables), jax.tree.leaves(small.variables), strict=True):
        np.testing.assert_array_equal(found, expected)
