"""The error of a run that is impossible."""

import contextlib


class RunError(Exception):
    """The run is impossible with these arguments; the message says why, and the remedy."""


def one_line(error):
    """The message of a library's error as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "..."


@contextlib.contextmanager
def writing(out):
    """Turns errors of reading or writing a run's files into a RunError."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError is caused by a NUL in a name
        raise RunError(
            f"{out} must be a folder that can be written, but cannot ({one_line(error)}); make room, or use another "
            "--out. What was saved is unchanged, and the same command continues from there."
        ) from error
