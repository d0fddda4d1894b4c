"""The HTML file: one template, its style and scripts, and the content as JSON in it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from hades._json import to_json

_SCRIPTS = ("dom", "format", "chart", "film", "player", "pairs", "tables", "main")


def make_page(content: Mapping[str, Any]) -> str:
    """A page that loads nothing from anywhere.

    Args:
        content: Result of `experiments.report.content.page_content`.
    """
    template = files("experiments.report") / "template"
    script = "\n".join((template / f"{name}.js").read_text() for name in _SCRIPTS)
    # A script element ends at the first "</script", whatever is around it.
    data = to_json(content).replace("<", "\\u003c")
    page = Template((template / "page.html").read_text())
    style = (template / "page.css").read_text()
    return page.substitute(title=html.escape(f"{content['title']} · HaDES"), style=style, data=data, script=script)
