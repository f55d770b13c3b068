"""`COMPILATION_CACHE=DIR`: compiled programs that the next test run finds again.

JAX writes the entries of its compilation cache in place, so that of two processes which share a folder one may read
half an entry. So each worker has a folder of its own, which begins as the kept one and is added to it in the end.
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
def kept_programs(kept):
    """Takes compiled programs from the folder `kept` and adds new ones in the end.

    JAX's keys tell versions, flags and processors apart.
    """
    with tempfile.TemporaryDirectory(prefix="ramda_jax_programs_", ignore_cleanup_errors=True) as folder:
        folder = Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        link_all(kept, folder)
        configure("jax_enable_compilation_cache", True)
        configure("jax_persistent_cache_min_compile_time_secs", 0.0)
        configure("jax_persistent_cache_min_entry_size_bytes", -1)
        # Its default writes the folder's name into the options of XLA, and so into every key.
        configure("jax_persistent_cache_enable_xla_caches", "none")
        configure("jax_compilation_cache_dir", str(folder))
        yield
        link_all(folder, kept)
