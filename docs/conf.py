"""Sphinx builds the documentation site (`make site`) from the Markdown pages and docstrings."""

import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow/scripts"))

project = "node-robustness"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
copyright = "the node-robustness developers"
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
include_patterns = [
    "*.md",
    "config/*.md",
    "examples/models/*.md",
    "profiles/*.md",
    "docs/**.md",
    "docs/**.rst",
]
exclude_patterns = [".*", "results", "resources", "site"]
templates_path = ["_templates"]

myst_heading_anchors = 4
default_role = "code"  # docstrings have single backticks, as Markdown
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = f"{project} {release}"
html_additional_pages = {"index": "index.html"}
html_copy_source = False

CONTENTS = """

```{toctree}
:hidden:
:caption: Guide
docs/workflow
docs/environments
config/README
docs/own-models
examples/models/README
profiles/README
docs/reruns
docs/library
docs/results/mnist
docs/results/cifar10
docs/results/digits
docs/results/defences
```

```{toctree}
:hidden:
:caption: Methods
docs/attacks
docs/audit
docs/verdict
docs/trajectories
docs/reproducibility
docs/performance
```

```{toctree}
:hidden:
:caption: Reference
docs/reference/configuration
docs/reference/api
docs/files
```

```{toctree}
:hidden:
:caption: Project
ARCHITECTURE
CONTRIBUTING
CHANGELOG
```
"""
"""The navigation, which GitHub would show as code in README.md."""


def _add_contents(_: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += CONTENTS


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_contents)
