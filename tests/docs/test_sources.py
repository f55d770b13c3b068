"""What is said of "the papers" is in both of them, and numbers that are cited of a paper exist there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [
    *(path for folder in ("docs", "docs/api") for path in (ROOT / folder).glob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md", "examples/README.md")),
    *(path for name in ("ramda_jax", "examples", "benchmarks") for path in (ROOT / name).rglob("*.py")),
    *(ROOT / "notebooks").glob("*.ipynb"),
]
BOTH = re.compile(r"\b(the|of|both) papers\b", re.IGNORECASE)
# The released code has RMDA and RAMDA in one package, so that "the papers' code" may have any of these.
CODE = re.compile(r"papers' (released )?code|in the papers' code")
# What only one of the papers has: NeurIPS the inexact solver and the weighted measure, ICLR the MCP and RigL.
ONE = re.compile(
    r"proximal ?gradient|inexact|Algorithms? [23]\b|Theorems? [34]\b|condition \(7\)|fourth moment|ProxGen|"
    r"stopping rule|screening|main measure|LSTM|SVDs?\b|nuclear norm|\bMCP\b|GroupMCP|RigL",
    re.IGNORECASE,
)
# The largest number of each kind in the paper, and the last letter of its appendix.
LAST = {
    "2403.14398": dict(Theorem=4, Algorithm=3, Table=9, Figure=2, equation=40, section=7, appendix="E"),
    "2112.02612": dict(Theorem=2, Lemma=2, Algorithm=1, Table=17, Figure=6, equation=31, section=6, appendix="E"),
}
CITED = re.compile(r"arXiv:(2403\.14398|2112\.02612)([^`]*?)(?=\. |\.$|\"\"\"|arXiv|Huang|$)", re.DOTALL)
PLACE = re.compile(r"(Theorem|Lemma|Algorithm|Table|Figure|equation|section|appendix)s? \(?(\d+|[A-Z])\b")


def wrong_sentences(text):
    sentences = re.split(r'(?<=[.:|!?])\s|"""', re.sub(r"[\s#]+", " ", text))
    return [one for one in sentences if BOTH.search(one) and ONE.search(one) and not CODE.search(one)]


@pytest.mark.parametrize(
    ("sentence", "is_wrong"),
    [
        ("`ProximalGradient`, the papers' solver, finds a point.", True),
        ("It is the papers'\n    inexact solution (Algorithm 3, Theorem 4).", True),
        ("The papers state RAMDA's stages. ProxGen has none.", False),
        ("The NeurIPS paper has proximal gradient.", False),
    ],
)
def test_wrong_sentences_are_found(sentence, is_wrong):
    assert bool(wrong_sentences(sentence)) == is_wrong


def test_nothing_that_one_paper_has_is_said_of_both():
    wrong = {str(path.relative_to(ROOT)): found for path in TEXTS if (found := wrong_sentences(path.read_text()))}
    assert not wrong, f"Say which paper has it, or whose code: {wrong}"


def test_cited_places_exist():
    seen = set()
    for path in (ROOT / "ramda_jax").rglob("*.py"):
        for paper, rest in CITED.findall(path.read_text()):
            for kind, number in PLACE.findall(rest):
                last = LAST[paper].get(kind)
                fits = isinstance(last, str) and number.isalpha() and number <= last
                fits = fits or (isinstance(last, int) and number.isdigit() and 1 <= int(number) <= last)
                assert fits, f"{path.name}: {kind} {number} is not in arXiv:{paper}; look it up in the paper."
                seen.add((paper, kind))
    assert len(seen) >= 7
