"""README.md as a package index shows it, which has neither the checkout nor its pictures.

`hatch_build.py` puts it into the wheel and the sdist.
"""

import re

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
PICTURE = re.compile(r"^!\[[^\]]*\]\((?!\w+:)[^)\s]+\)\n\n(.+\n)*\n", re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->\n*", re.DOTALL)
CHECKOUT = re.compile(r'pip install "\.(\[[\w,]+\])"( \w+)? +# in a checkout.*')


def for_index(text, version, repository=None):
    """README's text with `repository/blob/vVERSION` before its links; without an address they become text.

    A picture without an address goes with the paragraph below it.
    """
    text = CHECKOUT.sub(r'pip install "ramda_jax\1"\2', COMMENT.sub("", text))
    if repository is None:
        return LINK.sub(r"\2", PICTURE.sub("", text))
    base = repository.rstrip("/")

    def absolute(match):
        picture, words, target = match.groups()
        return f"{picture}[{words}]({base}/{'raw' if picture else 'blob'}/v{version}/{target})"

    return LINK.sub(absolute, text)
