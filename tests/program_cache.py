"""`COMPILATION_CACHE=DIR`: keeps compiled programs for the next test run.

JAX writes the entries of its compilation cache in place, so a process may read half an entry of another process in the
same folder. So each worker has its own folder. It starts as a copy of the kept folder, and new entries are added to the
kept folder at the end.
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
    """Links each file of a folder into another folder. Existing entries stay."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        with contextlib.suppress(FileExistsError):
            try:
                os.link(entry, target / entry.name)
            except OSError as error:
                if isinstance(error, FileExistsError):
                    raise
                # On another file system, copy the file under another name first, so that no run reads half of it.
                part = target / f".{entry.name}.{os.getpid()}"
                shutil.copyfile(entry, part)
                part.replace(target / entry.name)


@contextlib.contextmanager
def kept_programs(kept):
    """Uses compiled programs from the folder `kept`, and adds new programs to it at the end.

    JAX's keys depend on the versions, the flags and the processor.
    """
    with tempfile.TemporaryDirectory(prefix="ramda_jax_programs_", ignore_cleanup_errors=True) as folder:
        folder = Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        link_all(kept, folder)
        configure("jax_enable_compilation_cache", True)
        configure("jax_persistent_cache_min_compile_time_secs", 0.0)
        configure("jax_persistent_cache_min_entry_size_bytes", -1)
        # The default would write the folder's name into XLA's options, and so into every key.
        configure("jax_persistent_cache_enable_xla_caches", "none")
        configure("jax_compilation_cache_dir", str(folder))
        yield
        link_all(folder, kept)
