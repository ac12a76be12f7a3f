"""The site: ``nox -s docs`` writes it to build/site; warnings are errors."""

import torch_plateau

project = "torch-plateau"
version = release = torch_plateau.__version__
copyright = "the authors of torch-plateau"  # noqa: A001 (Sphinx' name)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "torch-plateau"
html_copy_source = False
html_static_path = ["_static"]
html_css_files, html_js_files = ["keyboard.css"], ["keyboard.js"]  # Furo's drawers, without a mouse
_small = {"code-font-size": "75%"}  # so that lines of 100 columns fit
html_theme_options = {"light_css_variables": _small, "dark_css_variables": _small}
myst_heading_anchors = 4  # links to headings are checked as links to pages are
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures hold them already
napoleon_use_rtype = False
