"""The Sphinx configuration of the documentation: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from site_parts import PATIENCE  # noqa: E402 - found by the path above

from airflow_provider_coveo import __version__  # noqa: E402 - found by the path above

project = "airflow-provider-coveo"
release = version = __version__
html_title = f"{project} {release}"
html_show_copyright = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "site_parts",
]
exclude_patterns = ["_build", "_parts"]

# Every reference must resolve. References to other projects are not looked up, so that the site builds
# without a network.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(airflow|aiohttp|logging|requests|urllib|urllib3|msgspec)(\..*)?"),
    (r"py:.*", r"(collections|contextlib|datetime|decimal|enum|io|pathlib|random|typing|uuid)(\..*)?"),
    # The server's internals, whose types appear in signatures of the page of its organization.
    (r"py:.*", r"airflow_provider_coveo\.simulator\.(models|records)\..*"),
    (r"py:.*", r"(builtins\.)?(str|int|float|bool|bytes|dict|list|tuple|set|frozenset|type|object|None)"),
]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist", "substitution"]
myst_substitutions = {"patience": PATIENCE}
myst_heading_anchors = 3

autodoc_preserve_defaults = True
# The code has no type comments. To look for them costs a tenth of the build.
autodoc_use_type_comments = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
