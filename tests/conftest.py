"""Fixtures of all tests, and how they are compiled.

Most of the run's time is XLA's compiler's. With `COMPILATION=quick` in the environment, as `make test` has it for all
tests but those of bits, XLA optimises little.
"""

import functools
import gc
import importlib.metadata
import os
import resource
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import settings
from jax._src.interpreters import mlir

from tests.compile_report import CompileReport
from tests.program_cache import configure, kept_programs
from tests.tiers import mark_slow_cases

# Imports and tracing make many objects that stay: by default the collector walks over them all again and again.
gc.set_threshold(50_000, 20, 20)

# JAX makes a context of MLIR with all dialects for each program, which takes half of the lowering of a small one. The
# context is a table of types and attributes and has no influence on the program, so one is enough.
if hasattr(mlir, "make_ir_context"):
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)

# Bytes of a process from which on its compiled functions are forgotten after each module.
MEMORY = 3e9


def add_xla_flag(flag):
    """For what has to be compiled from here on, in the processes that tests start too."""
    # Later versions cannot do without the fusion emitters, and XLA ends a process at a flag that it does not know.
    if importlib.metadata.version("jaxlib").startswith("0.10.") and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def compile_quickly():
    """By the environment, so that the processes that tests start do so too; and here, where JAX is imported already."""
    configure("jax_disable_most_optimizations", True)
    # Where in Python an operation comes from is not asked of a compiled program here; to write it down takes a tenth
    # of the lowering.
    configure("jax_traceback_in_locations_limit", 0)
    add_xla_flag("--xla_cpu_use_fusion_emitters=false")


# One thread has to generate the code of a program: in one piece that takes a tenth less, and is the same code.
add_xla_flag("--xla_cpu_parallel_codegen_split_count=1")
if os.environ.get("COMPILATION") == "quick":
    compile_quickly()
if not os.environ.get("COMPILATION_CACHE") and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # JAX works out the key of every program, though there is nowhere to look it up.
    configure("jax_enable_compilation_cache", False)

# The same examples in every run, and no deadline: the first example of a shape pays for its compilation.
settings.register_profile("ramda_jax", deadline=None, derandomize=True, database=None)
settings.load_profile("ramda_jax")


def pytest_addoption(parser):
    parser.addoption("--compile-report", action="store_true", help="print processor and compilation time by test")
    parser.addoption("--compile-report-file", metavar="FILE", help="the same, and write it of all tests, as JSON")


def pytest_configure(config):
    if config.getoption("--compile-report") or config.getoption("--compile-report-file"):
        config.pluginmanager.register(CompileReport(config), "compile-report")
    kept = os.environ.get("COMPILATION_CACHE")
    # Where tests run, not where workers are waited for; in a process that a test started the cache is its parent's.
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    if kept and runs_tests and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        programs = kept_programs(Path(kept).absolute())
        programs.__enter__()
        config.add_cleanup(lambda: programs.__exit__(None, None, None))
        # JAX's warnings that an entry cannot be read: it is compiled then.
        config.addinivalue_line("filterwarnings", "ignore:Error .*persistent compilation cache")


# Before pytest looks at `-m`.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    mark_slow_cases(items)


def pytest_collection_finish():
    """What was imported lives to the end: the collector need not walk over it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Forgets compiled functions, but only once they are gigabytes: modules share many of them."""
    yield
    if peak_memory() > MEMORY:
        jax.clear_caches()


@pytest.fixture(scope="module")
def quick_collections():
    """For modules that call `gc.collect`: it leaves out what other tests have made, which would take seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


def peak_memory():
    """The most bytes that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
