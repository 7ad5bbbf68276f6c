"""How Sphinx makes the documentation site: `make docs`.

The pages are the Markdown files of this folder, which a forge shows as they are, and one page for
each public name, from its docstring. Nothing is loaded from elsewhere: MathJax is an npm package
whose version and hash package-lock.json pins.
"""

import inspect
import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.util.inspect import stringify_signature

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "docs"
sys.path.insert(0, str(ROOT))

import cysoftmax  # noqa: E402
from benchmarks.dashboard import npm  # noqa: E402

project = "cysoftmax"
copyright = author = "the cysoftmax developers"
version = release = cysoftmax.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]

# ---------------------------------------------------------------- Markdown

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

# Files outside of this folder that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "security.md",
}
ONLY_A_LINK = re.compile(r"^\[[^]]*\]\(\.\./(\w+\.md)\)$", re.MULTILINE)
RELATIVE_LINK = re.compile(r"(\]\()(?!https?:|#)([^)#]+)")


def site_links(text, folder):
    """Return Markdown whose links, relative to `folder`, are those of a page in docs/."""

    def replaced(match):
        path = os.path.normpath(os.path.join(folder, match[2]))
        return match[1] + PAGES.get(path, os.path.relpath(path, "docs"))

    return RELATIVE_LINK.sub(replaced, text)


def read_page(app, docname, source):
    """Put a file in place of a line that is nothing but a link to it; mend all relative links."""

    def text_of(match):
        app.env.note_dependency(str(ROOT / match[1]))
        return site_links((ROOT / match[1]).read_text(encoding="utf-8"), ".")

    if (HERE / f"{docname}.md").exists():
        source[0] = site_links(ONLY_A_LINK.sub(text_of, source[0]), "docs")


# ---------------------------------------------------------------- docstrings

autosummary_generate = True
autodoc_mock_imports = ["torch", "cysoftmax._torch", "dask"]  # docstrings need neither
default_role = "autolink"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
nitpicky = True
nitpick_ignore = [  # of other projects
    ("py:class", "Tensor"),
    ("py:class", "numpy.ndarray"),
    ("py:class", "torch.dtype"),
    ("py:class", "dask.array.Array"),
    ("py:obj", "numpy.argmax"),
    # What a docstring has in words.
    ("py:class", "cysoftmax.boosting.Metric"),
    ("py:class", "cysoftmax.boosting.Objective"),
    ("py:class", "cysoftmax.dask.CrossEntropy"),
    ("py:class", "cysoftmax.dask.GradHess"),
    ("py:class", "cysoftmax.dask.RowStats"),
    ("py:obj", "out"),  # the argument: autolink could import the folder of the demos
]


def signature_of_class(app, what, name, obj, options, signature, returns):
    """Give a class the signature of its own __init__: that of its base may be PyTorch's."""
    if what != "class" or "__init__" not in vars(obj):
        return None
    own = inspect.signature(obj.__init__)
    own = own.replace(parameters=list(own.parameters.values())[1:])
    return stringify_signature(own.replace(return_annotation=own.empty)), None


# ---------------------------------------------------------------- formulas

VENDOR = BUILD / "vendor"  # what the site carries of npm packages
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {
    "options": {"enableMenu": False},  # which would load more, as would require and autoload
    # Without noundefined, an unknown command is an error, which `make test-docs` finds.
    "tex": {"packages": {"[-]": ["noundefined", "require", "autoload"]}},
}


def copy_mathjax(app, config):
    packages = BUILD / "npm"
    npm.install(HERE, packages)
    target = VENDOR / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("es5/tex-svg.js", "LICENSE"):
        shutil.copy(packages / "node_modules" / "mathjax" / name, target)


# ---------------------------------------------------------------- the look

html_theme = "pydata_sphinx_theme"
html_title = "cysoftmax"
html_static_path = ["_static", str(VENDOR)]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "cysoftmax"},
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_sidebars = {"index": []}


def setup(app):
    app.connect("config-inited", copy_mathjax)
    app.connect("source-read", read_page)
    app.connect("autodoc-process-signature", signature_of_class)
