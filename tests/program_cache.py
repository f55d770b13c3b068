"""JAX's compilation cache for the time of a test run: equal programs are compiled once, though functions differ.

Tests build their optimizers and jit their steps anew, and JAX's caches in memory know functions, not programs. Each
worker has an empty folder of its own, which ends with it: JAX writes its entries in place, so that two processes that
shared a folder could read half of one. `COMPILATION_CACHE=DIR` keeps the programs in DIR for the next run.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import jax


def configure(name, value):
    """Sets an option of JAX here and in the processes that tests start."""
    os.environ[name.upper()] = str(value)
    jax.config.update(name, value)


def link_all(source, target):
    """Gives each file of a folder a second name in another one. An entry that is there already stays."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        with contextlib.suppress(FileExistsError):
            try:
                os.link(entry, target / entry.name)
            except OSError as error:
                if isinstance(error, FileExistsError):
                    raise
                # Another file system. Under a name of its own first, so that no other run reads half of it.
                part = target / f".{entry.name}.{os.getpid()}"
                shutil.copyfile(entry, part)
                part.replace(target / entry.name)


@contextlib.contextmanager
def shared_programs(kept=None):
    """Shares compiled programs within this process and its children, and with other runs in the folder `kept`.

    JAX's keys tell versions, flags and processors apart.
    """
    with tempfile.TemporaryDirectory(prefix="ramda_jax_programs_", ignore_cleanup_errors=True) as folder:
        folder = Path(folder)
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
            link_all(kept, folder)
        configure("jax_persistent_cache_min_compile_time_secs", 0.0)
        configure("jax_persistent_cache_min_entry_size_bytes", -1)
        configure("jax_compilation_cache_dir", str(folder))
        yield
        if kept is not None:
            link_all(folder, kept)
