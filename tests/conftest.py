"""Fixtures of all tests, and the settings of their compilation.

XLA's compiler takes most of the run's time. With `COMPILATION=quick` in the environment XLA optimises little. `make
test` sets it for all tests but those of bits.
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

# Imports and tracing make many objects that stay. With the default thresholds the collector visits them all repeatedly.
gc.set_threshold(50_000, 20, 20)

# JAX makes an MLIR context with all dialects for each program, which takes half of the lowering time of a small
# program. The context is a table of types and attributes and does not influence the program, so one is enough.
if hasattr(mlir, "make_ir_context"):
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)

# If a process has held more bytes than this, its compiled functions are dropped. The memory stays with the process, and
# later programs use it. So they are dropped again only after the process has held so much more.
MEMORY = 3e9
MORE_MEMORY = 0.5e9


def add_xla_flag(flag):
    """Adds a flag for all later compilations, also in processes that tests start."""
    # Later versions need the fusion emitters, and XLA aborts the process at an unknown flag.
    if importlib.metadata.version("jaxlib").startswith("0.10.") and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def compile_quickly():
    """Sets options in the environment, for processes that tests start, and here, because JAX is already imported."""
    configure("jax_disable_most_optimizations", True)
    # No test reads from a compiled program where in Python an operation comes from. Recording it takes a tenth of the
    # lowering time.
    configure("jax_traceback_in_locations_limit", 0)
    add_xla_flag("--xla_cpu_use_fusion_emitters=false")


# A single thread generates the code of a program. Without splitting it takes a tenth less time, for the same code.
add_xla_flag("--xla_cpu_parallel_codegen_split_count=1")
if os.environ.get("COMPILATION") == "quick":
    compile_quickly()
if not os.environ.get("COMPILATION_CACHE") and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # JAX would compute the cache key of every program, although there is no cache.
    configure("jax_enable_compilation_cache", False)

# Every run has the same examples. There is no deadline, because the first example of a shape includes compilation.
settings.register_profile("ramda_jax", deadline=None, derandomize=True, database=None)
settings.load_profile("ramda_jax")


def pytest_addoption(parser):
    parser.addoption("--compile-report", action="store_true", help="print processor and compilation time by test")
    parser.addoption("--compile-report-file", metavar="FILE", help="the same, and write it of all tests, as JSON")


def pytest_configure(config):
    if config.getoption("--compile-report") or config.getoption("--compile-report-file"):
        config.pluginmanager.register(CompileReport(config), "compile-report")
    kept = os.environ.get("COMPILATION_CACHE")
    # Open the cache where tests run, not in the process that waits for workers. A process that a test starts uses the
    # cache of its parent.
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    if kept and runs_tests and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        programs = kept_programs(Path(kept).absolute())
        programs.__enter__()
        config.add_cleanup(lambda: programs.__exit__(None, None, None))
        # JAX warns if it cannot read an entry, and compiles the program.
        config.addinivalue_line("filterwarnings", "ignore:Error .*persistent compilation cache")


# Run before pytest applies `-m`.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    mark_slow_cases(items)


def pytest_collection_finish():
    """Freezes imported objects, which live to the end, so that the collector skips them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def most_memory():
    """The bytes from which on compiled functions are dropped, in a list."""
    return [MEMORY]


@pytest.fixture(autouse=True, scope="module")
def bounded_memory(most_memory):
    """Drops compiled functions, but only once they take gigabytes, because modules share many of them."""
    yield
    if peak_memory() > most_memory[0]:
        jax.clear_caches()
        most_memory[0] = peak_memory() + MORE_MEMORY


@pytest.fixture(scope="module")
def quick_collections():
    """For modules that call `gc.collect`: skips objects of other tests, whose collection would take seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


def peak_memory():
    """The peak memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
