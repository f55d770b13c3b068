"""Links every `name` in the text that is a public name to its page in the API reference."""

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import ramda_jax

SUBMODULES = (
    "regularizers",
    "solvers",
    "metrics",
    "structure",
    "compaction",
)


def documented_names():
    """The names of the API reference: `ramda_jax.NAME` for what is there, else `ramda_jax.SUBMODULE.NAME`."""
    names = {name: f"ramda_jax.{name}" for name in ramda_jax.__all__ if name not in SUBMODULES}
    for submodule in SUBMODULES:
        module = getattr(ramda_jax, submodule)
        for name in module.__all__:
            is_on_top = getattr(ramda_jax, name, None) is getattr(module, name)
            names[f"{submodule}.{name}"] = f"ramda_jax.{name}" if is_on_top else f"ramda_jax.{submodule}.{name}"
    return names


def spellings(docname):
    """From what people write (`ramda`, `metrics.support`, `ramda_jax.ramda`) on a page to the documented name."""
    found = {f"ramda_jax.{submodule}": f"ramda_jax.{submodule}" for submodule in SUBMODULES}
    for path, full in documented_names().items():
        found |= dict.fromkeys((path, f"ramda_jax.{path}", full), full)
        submodule, _, name = path.rpartition(".")
        # `support`, `factor` and `cost` are also words: alone they are names where the page is about their submodule.
        if full.count(".") == 1 or submodule in docname:
            found[name] = full
    return found


class LinkPublicNames(SphinxTransform):
    """Makes references of literals."""

    default_priority = 9  # before references are resolved

    def apply(self, **kwargs):
        names = spellings(self.env.docname)
        for literal in list(self.document.findall(nodes.literal)):
            parent = literal.parent
            if isinstance(parent, (nodes.reference, nodes.title, addnodes.pending_xref, addnodes.download_reference)):
                continue
            full = names.get(literal.astext().split("(")[0])
            if full is None or self.env.docname.endswith(full):
                continue
            reference = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=full,
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
            literal.replace_self(reference)
            reference += literal


def setup(app):
    """Registers the transform."""
    app.add_transform(LinkPublicNames)
    return {"parallel_read_safe": True, "version": "1"}
