"""Why a run cannot be."""

import contextlib


class RunError(Exception):
    """The run cannot be as it was asked for; the message says why and what to do."""


def one_line(error):
    """An error of a library in a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "..."


@contextlib.contextmanager
def writing(out):
    """Makes a RunError of what keeps files of a run from being read or written."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError is that of a NUL in a name
        raise RunError(
            f"{out} must be a folder that can be written, but cannot ({one_line(error)}); make room, or use another "
            "--out. What was saved is as it was, and the same command continues from there."
        ) from error
