"""Configuration of the documentation, which `make html` builds from the tree alone, without a network."""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import tamt

project = "tamt"
author = "The tamt developers"
copyright = "The tamt developers"
version = release = tamt.__version__

extensions = [
    "figures",
    "guides",
    "links",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "templates", "gallery/**/*.py", "gallery/**/*.ipynb"]
templates_path = ["_templates"]
nitpicky = True
# What has no page: names of others, without a network, and tamt's internals.
nitpick_ignore_regex = [(r"py:.*", r"(torch|torchaudio|scipy|numpy|matplotlib)\..*|tamt\.(design|reference)\..*")]
suppress_warnings = ["sphinx_gallery.space_in_filename"]  # as a checkout may be anywhere

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Blocks of code that are for the shell, or for a diff, are shown as they are.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Pages about a name, or about all of a module.
GUIDES = {
    "tamt.Cochleagram": ("guide/training", "guide/streaming", "guide/tuning", "coming_from/mel", "performance"),
    "tamt.GammatoneFilterbank": ("guide/training", "guide/extending", "conformance", "accuracy", "engine"),
    "tamt.DRNLFilterbank": ("guide/levels", "guide/training", "guide/tuning", "conformance", "coming_from/amt"),
    "tamt.FastDRNLFilterbank": ("guide/levels", "guide/tuning", "conformance"),
    "tamt.OuterMiddleEar": ("guide/levels", "guide/loudness", "conformance"),
    "tamt.MultiResolutionFFT": ("guide/levels", "guide/loudness", "conformance"),
    "tamt.ERBIntegration": ("guide/levels", "guide/loudness", "conformance"),
    "tamt.ExcitationPattern": ("guide/loudness", "conformance"),
    "tamt.Moore2016Spectrum": ("guide/levels", "guide/loudness", "conformance"),
    "tamt.Moore2016ExcitationPattern": ("guide/loudness", "guide/tuning", "conformance"),
    "tamt.Moore2016Loudness": ("guide/loudness", "guide/levels", "guide/streaming", "conformance"),
    "tamt.Glasberg2002Loudness": ("guide/loudness", "guide/levels", "guide/streaming", "conformance"),
    "tamt.Moore2016SpecificLoudness": ("guide/loudness", "conformance"),
    "tamt.Glasberg2002SpecificLoudness": ("guide/loudness", "conformance"),
    "tamt.BinauralInhibition": ("guide/loudness", "conformance"),
    "tamt.AttackRelease": ("guide/loudness", "guide/streaming", "guide/extending", "conformance"),
    "tamt.sone2phon": ("guide/loudness",),
    "tamt.phon2sone": ("guide/loudness",),
    "tamt.loudness": ("guide/loudness",),
    "tamt.spl": ("guide/levels",),
    "tamt.ops": ("guide/extending", "engine"),
} | dict.fromkeys((f"tamt.{name}" for name in tamt.scales.__all__), ("conformance", "coming_from/amt"))
autosummary_context = {"methods_of": {}, "properties_of": {}, "guides_of": GUIDES}
for name in tamt.__all__:
    if isinstance(kind := getattr(tamt, name), type):
        own = [
            item for item in dir(kind) if item == "forward" or not (item[0] == "_" or hasattr(torch.nn.Module, item))
        ]
        autosummary_context["methods_of"][name] = [item for item in own if callable(getattr(kind, item))]
        autosummary_context["properties_of"][name] = [item for item in own if isinstance(getattr(kind, item), property)]
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 88
autodoc_typehints = "none"  # parameters have their types in words
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "subsection_order": [f"../examples/gallery/{part}" for part in ("filters", "loudness", "learning", "practice")],
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "reference/examples",
    "doc_module": ("tamt",),
    "image_scrapers": ("figures.scraper",),
    "reset_modules": ("figures.reset",),
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
    "parallel": 2,
    "default_thumb_file": str(DOCS / "images" / "cochleagram.png"),
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "tamt"
# Of the package with MathJax one file is enough: as an extension, it would bring all of it and no parallel builds.
MATHJAX = find_spec("sphinx-mathjax-offline")
html_static_path = [
    "_static",
    *(f"{folder}/static/mathjax/tex-svg.js" for folder in MATHJAX.submodule_search_locations),
]
mathjax_path = "tex-svg.js"
html_css_files = ["tamt.css"]
html_search_scorer = str(DOCS / "_search.js")
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["version"],
    "logo": {"text": "tamt"},
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "install": []}
