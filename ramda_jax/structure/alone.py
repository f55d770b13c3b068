"""Which leaves a regularizer that is given alone, without patterns, is for."""

import re

#: Last keys of what a regularizer given alone leaves: biases and scales, tables, tokens and what stands for positions.
_NEVER_ALONE = re.compile(
    r"(^|/)("
    r"scale|gamma|beta|A_log|wte|wpe|queries|"
    r"([^/]*_)?(bias|embeddings?|embeds?|latents?|tables?|tokens?)|"
    # Equinox, and ports of PyTorch: of a stack of norms it has two axes, as a matrix has
    r"(([^/]*_)?(embeddings?|embeds?)|wte|wpe|[^/]*[nN]orm[^/]*|ln_?[^/]{0,2})/weight"
    r")$"
)


def is_selected_alone(path: str, ndim: int) -> bool:
    """Whether a regularizer given alone takes a leaf: two axes or more, and not under the last key of a bias, a scale,
    an embedding or another table, of tokens or latents, in the singular or the plural. One bare rank-1 array (what
    `optax.flatten` hands over) is taken too."""
    if path == "":  # no key at all; the name of a leaf under the empty key is another
        return ndim >= 1
    return ndim >= 2 and not _NEVER_ALONE.search(path)
