"""Plain text as bytes, for models of single characters: WikiText's, or what every Python brings."""

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from examples.data.errors import DataError, check_enough, require
from examples.data.wikitext import FILES, SOURCE


def read_text(data_dir=None):
    """(training text, held-out text), bytes as uint8 arrays.

    Args:
        data_dir: a folder with WikiText's files; None for the text of Python's own language reference, some hundred
            pages of English that every Python has for `help()`, of which the last tenth is held out.
    """
    if data_dir is None:
        text = "\n".join(topics[name] for name in sorted(topics)).encode()
        texts = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    else:
        require(data_dir, FILES.values(), SOURCE, "WikiText")
        texts = tuple((Path(data_dir) / name).read_bytes() for name in FILES.values())
    return tuple(np.frombuffer(text, np.uint8) for text in texts)


def num_characters(text):
    """How many characters begin in bytes of UTF-8."""
    return int(np.sum((np.asarray(text) & 0xC0) != 0x80))


def random_pieces(text, batch, length, rng):
    """int32 `[batch, length]`: pieces of a text from anywhere."""
    check_enough(len(text) // length, batch, f"pieces of {length} bytes of text")
    starts = rng.integers(len(text) - length + 1, size=batch)
    return text[starts[:, None] + np.arange(length)].astype(np.int32)


def spread_pieces(text, count, length):
    """int32 `[count, length]`: pieces that do not overlap, spread evenly over a text."""
    available = len(text) // length
    if not 0 < count <= available:
        raise DataError(f"The text has {available} pieces of {length} bytes, not {count}; use fewer or shorter ones.")
    chosen = np.arange(count) * available // count
    return text[: available * length].reshape(available, length)[chosen].astype(np.int32)
