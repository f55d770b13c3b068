"""Fixtures of all tests."""

import jax
import pytest
from hypothesis import settings

# The same examples in every run, and no deadline: the first example of a shape pays for its compilation.
settings.register_profile("ramda_jax", deadline=None, derandomize=True, database=None)
settings.load_profile("ramda_jax")


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Forgets a module's compiled functions when it is done: those of all modules together are gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
