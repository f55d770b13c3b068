"""`make release-check`: what must hold before a version is tagged and uploaded. It changes and uploads nothing.

python tests/check_release.py dist
"""

import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def git(*arguments):
    """The output of a git command."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def faults_of_version(version, changelog, tags):
    """Sentences that say what is wrong with a version, the changelog's text and the names of the tags."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version):
        yield f"`__version__` must be like 1.2.3 or 1.2.3rc1, got {version}; set it in ramda_jax/__init__.py."
    headings = HEADING.findall(changelog)
    released = [name for name, _ in headings if name != "Unreleased"]
    if not released or released[0] != version:
        yield f"CHANGELOG.md must begin with {version}, got {released[:1]}; head the changes `## [{version}] - DATE`."
    elif not dict(headings)[version]:
        yield f"CHANGELOG.md has no date for {version}; write `## [{version}] - YYYY-MM-DD`."
    parts = re.split(HEADING, changelog)
    bodies = dict(zip(parts[1::3], parts[3::3], strict=True))
    if bodies.get("Unreleased", "").strip():
        yield f"CHANGELOG.md has changes under Unreleased; move them to {version}."
    if f"v{version}" in tags:
        yield f"The tag v{version} exists; a release needs a new version."


def faults_of_wheel(metadata, version, render):
    """Sentences that say what is wrong with the text of a wheel's METADATA."""
    message = message_from_bytes(metadata)
    if message["Version"] != version:
        yield f"The wheel is of {message['Version']}, the package of {version}; run `make build`."
    text = message.get_payload()
    page = render(text)
    if page is None:
        yield "The README does not render as Markdown."
    elif missing := [tag for tag in ("<h1", "<table", "<pre", "<code") if tag not in page]:
        yield f"The rendered README lacks {missing}."
    if relative := re.findall(r"\]\((?!\w+:|#)[^)\s]+\)", text):
        yield f"The README's links {relative[:3]} lead nowhere on a package index; docs/for_index.py must see them."


def main(dist):
    """Prints what is wrong and exits with 1, or prints what to do next."""
    from readme_renderer import markdown

    sys.path.insert(0, str(ROOT))
    from ramda_jax import __version__ as version

    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name)
    faults = [*faults_of_version(version, (ROOT / "CHANGELOG.md").read_text(), git("tag").split())]
    if changed := git("status", "--porcelain").splitlines():
        faults.append(f"The working tree has {len(changed)} changes, such as '{changed[0]}'; commit or remove them.")
    faults += faults_of_wheel(metadata, version, markdown.render)
    for fault in faults:
        print(f"FAULT: {fault}")
    if faults:
        raise SystemExit(1)
    if b"Project-URL: Repository" not in metadata:
        print("Note: [project.urls] has no Repository, so an index shows the README without its picture and links.")
    print(f"{version} can be released. Then: git tag v{version}; git push --tags; python -m twine upload {dist.name}/*")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
