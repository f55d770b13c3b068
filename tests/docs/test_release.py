"""`make release-check` finds what must not be released."""

import re

import pytest

from tests.check_release import faults_of_version, faults_of_wheel

CHANGELOG = "# Changelog\n\n## [1.1.0] - 2026-01-02\n\n### Added\n\n- This.\n\n## [1.0.0] - 2025-01-02\n\n- That.\n"
METADATA = b"Metadata-Version: 2.4\nName: ramda_jax\nVersion: 1.1.0\n\n# Title\n"
PAGE = "<h1>Title</h1><table></table><pre><code></code></pre>"


def test_a_version_with_its_heading_may_go_out():
    assert list(faults_of_version("1.1.0", CHANGELOG, ["v1.0.0"])) == []
    assert list(faults_of_version("1.1.0", CHANGELOG.replace("## [1.1.0]", "## [Unreleased]\n\n## [1.1.0]"), [])) == []


@pytest.mark.parametrize(
    ("version", "changelog", "tags", "fault"),
    [
        ("1.1.0.dev0", CHANGELOG.replace("1.1.0", "1.1.0.dev0"), [], "must be like 1.2.3"),
        ("1.2.0", CHANGELOG, [], r"must begin with 1.2.0, got \['1.1.0'\]"),
        ("1.0.0", CHANGELOG, [], "must begin with 1.0.0"),
        ("1.1.0", "# Changelog\n\n## [Unreleased]\n\nWhat will be 1.1.0.\n", [], "must begin with 1.1.0"),
        ("1.1.0", CHANGELOG.replace(" - 2026-01-02", ""), [], "no date for 1.1.0"),
        ("1.1.0", CHANGELOG.replace("## [1.1.0]", "## [Unreleased]\n\n- New.\n\n## [1.1.0]"), [], "under Unreleased"),
        ("1.1.0", CHANGELOG, ["v1.0.0", "v1.1.0"], "tag v1.1.0 exists"),
    ],
)
def test_a_version_that_must_not_go_out(version, changelog, tags, fault):
    faults = list(faults_of_version(version, changelog, tags))
    assert re.search(fault, " ".join(faults))


@pytest.mark.parametrize(
    ("metadata", "page", "fault"),
    [
        (METADATA.replace(b"1.1.0", b"1.0.0"), PAGE, "wheel is of 1.0.0"),
        (METADATA, None, "does not render"),
        (METADATA, PAGE.replace("table", "p"), "lacks"),
        (METADATA + b"[guide](docs/guide.md) [a](#b) [c](https://d)\n", PAGE, r"\['\]\(docs/guide.md\)'\]"),
    ],
)
def test_a_wheel_that_must_not_go_out(metadata, page, fault):
    assert list(faults_of_wheel(METADATA, "1.1.0", lambda _: PAGE)) == []
    faults = list(faults_of_wheel(metadata, "1.1.0", lambda _: page))
    assert len(faults) == 1 and re.search(fault, faults[0])
