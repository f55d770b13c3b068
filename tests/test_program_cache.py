"""Compiled programs are kept from one test run to the next."""

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.program_cache import kept_programs

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_enable_xla_caches",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def own_cache(monkeypatch):
    """Sets the cache of this run aside, if it has one, and restores it."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    for name in OPTIONS:
        monkeypatch.setenv(name.upper(), "")
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_second_run_finds_every_program_of_the_first(tmp_path, own_cache):
    kept = []
    for _ in range(2):
        with kept_programs(tmp_path):
            # Each round has a new function, so that JAX asks the cache, but the program is the same.
            jax.jit(lambda x: 2 * x + 1)(np.arange(3.0))
        compilation_cache.reset_cache()
        kept.append({entry.name for entry in tmp_path.iterdir() if entry.name.endswith("-cache")})
    assert kept[0]
    assert kept[1] == kept[0]
