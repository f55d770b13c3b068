"""Which leaves a regularizer takes if it is given alone, without patterns."""

import re

#: Last keys of leaves that a regularizer given alone does not take: biases, scales, tables, tokens and positions.
_NEVER_ALONE = re.compile(
    r"(^|/)("
    r"scale|gamma|beta|A_log|wte|wpe|queries|"
    r"([^/]*_)?(bias|embeddings?|embeds?|latents?|tables?|tokens?)|"
    # Equinox, and ports of PyTorch: in a stack of norms it has two axes, like a matrix
    r"(([^/]*_)?(embeddings?|embeds?)|wte|wpe|[^/]*[nN]orm[^/]*|ln_?[^/]{0,2})/weight"
    r")$"
)


def is_selected_alone(path: str, ndim: int) -> bool:
    """Whether a regularizer given alone takes a leaf.

    It takes leaves of two axes or more, unless the last key is that of a bias, a scale, an embedding or another table,
    tokens or latents, in the singular or the plural. It also takes one bare rank-1 array, which `optax.flatten` makes.
    """
    if path == "":  # a bare array; a leaf under the empty key has another name
        return ndim >= 1
    return ndim >= 2 and not _NEVER_ALONE.search(path)
