"""What of the site is elsewhere in the repository: folders that pages link to, and the executed notebooks."""

import json
from pathlib import Path

from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

EXECUTED = "out/notebooks"
#: Pages that have parts.
PARTS = {"notebooks/README": "[0-9]*", "benchmarks/README": "NOTES"}


class UnlinkFolders(SphinxTransform):
    """A folder has no page: its name remains, as text."""

    default_priority = 9  # before references are resolved

    def apply(self, **kwargs):
        here = self.env.doc2path(self.env.docname).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link.get("reftype") == "myst" and link["refdomain"] is None and (here / link["reftarget"]).is_dir():
                link.replace_self(link.children)


def sources(text):
    """The sources of a notebook's cells."""
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]


def executed(app, docname, source):
    """Takes a notebook as `make notebooks` has executed it."""
    path = Path(app.srcdir, f"{docname}.ipynb")
    if not docname.startswith("notebooks/") or not path.exists():
        return
    copy = Path(app.srcdir, EXECUTED, path.name)
    if not copy.exists() or sources(copy.read_text()) != sources(source[0]):
        raise ExtensionError(f"{EXECUTED}/{path.name} is not an execution of {path.name}; run `make notebooks`.")
    source[0] = copy.read_text()
    app.env.note_dependency(copy)  # read again when it is executed again


def add_contents(app, docname, source):
    """Appends the contents to README.md, the site's first page, and to two others: GitHub does not need them."""
    if docname == app.config.root_doc:
        source[0] += "\n" + Path(app.confdir, "contents.txt").read_text()
    if docname in PARTS:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{PARTS[docname]}\n```\n"


def setup(app):
    """Registers all of them."""
    app.add_transform(UnlinkFolders)
    app.connect("source-read", executed)
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True, "version": "1"}
