"""Fixtures of all tests, and how they are compiled.

Most of the run's time is XLA's. With `COMPILATION=quick` in the environment, as `make test` has it for the tests that
are not about rounding, XLA optimises little, and what takes long is compiled once for all workers and processes.
"""

import atexit
import importlib.metadata
import os
import shutil
import tempfile

import jax
import pytest
from hypothesis import settings


def compile_quickly():
    """By the environment, so that workers and the processes that tests start do so too, and here: JAX is imported."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ramda-jax-tests-")
        atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_disable_most_optimizations", True)
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    # Later versions have no way without these emitters, and refuse a flag that they do not know.
    if importlib.metadata.version("jaxlib").startswith("0.10.") and flags not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"


if os.environ.get("COMPILATION") == "quick":
    compile_quickly()

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
