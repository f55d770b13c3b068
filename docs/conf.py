"""The documentation site: `make docs` builds it into out/docs.

Its source folder is the checkout, so that links between Markdown files are the same on the site and in the repository.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import ramda_jax

project = "ramda_jax"
author = "The ramda_jax authors"
project_copyright = "The ramda_jax authors, Apache License 2.0"
version = release = ramda_jax.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax itself, into the site
    "sphinx_copybutton",
    "myst_nb",
    "markdown_docstrings",
    "public_names",
    "repository",
]

root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/api/**",
    "benchmarks/*.md",
    "examples/README.md",
    "notebooks/*.md",
    "notebooks/*.ipynb",
    "tests/README.md",
]
exclude_patterns = [".*", "out", "dist", "data", "ramda_jax", "**/.ipynb_checkpoints"]
templates_path = [str(Path(__file__).parent / "_templates")]  # autosummary looks from the source folder

nitpicky = True
nitpick_ignore_regex = [
    # What a scaled group regularizer is made of: a class without a page.
    (r"py:.*", r"ramda_jax\.regularizers\.scaled\.ScaledGroups"),
    # No inventories of other projects: the build needs no network.
    (r"py:.*", r"(ValueError|TypeError|NamedTuple|typing\..*|abc\..*|jax\..*|optax\..*|collections\..*)"),
]

# Markdown
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# What GitHub takes for text: a line that begins with a percent sign, or with three plus signs.
myst_disable_syntax = ["myst_line_comment", "myst_block_break", "myst_target"]
nb_execution_mode = "off"  # `make notebooks` executes them
nb_ipywidgets_js = {}  # would come from another host

# Docstrings
autodoc_typehints = "none"  # Args says what Optax's long unions mean
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
# As a list without links: an `a, b:` would be taken for an `a` of type b.
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
autosummary_generate = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# HTML
html_theme = "furo"
html_title = f"ramda_jax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "to_readme.html"}
html_copy_source = False
html_show_sphinx = False
