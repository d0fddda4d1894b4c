"""Hooks of the site's build: the stored results become part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
_SUFFIXES = (".json", ".md", ".png")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pictures, tables and reports of `experiments/results` under the same path."""
    for path in sorted((ROOT / "experiments" / "results").rglob("*")):
        if path.suffix in _SUFFIXES:
            name = path.relative_to(ROOT).as_posix()
            # Reports have a place in the navigation, tables are reached from them.
            level = InclusionLevel.INCLUDED if path.name == "README.md" else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, name, abs_src_path=str(path), inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Points links between `docs/` and `experiments/`, which work where pages are read as files, into the site."""
    up = "../" * page.file.src_uri.count("/")
    beside_docs = markdown.replace(f"](../{up}experiments/", f"]({up}experiments/")
    return beside_docs.replace(f"]({up}docs/", f"]({up}") if up else beside_docs
