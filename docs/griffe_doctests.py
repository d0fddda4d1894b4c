"""Extension of Griffe, which reads docstrings for the API pages: doctests become fenced code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^( *)>>> .*(?:\n(?!\s*$|\s*```).+)*", re.MULTILINE)


def fence(docstring: str) -> str:
    """Fences every doctest of a docstring, from its first prompt to the next empty line.

    Args:
        docstring: With its common indentation removed.
    """
    return _DOCTEST.sub(lambda match: f"{match[1]}```pycon\n{match[0]}\n{match[1]}```", docstring)


class FenceDoctests(griffe.Extension):
    """Fences doctests, which are Markdown otherwise: brackets would be links."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of one module, class, function or attribute."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)
