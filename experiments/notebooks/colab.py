"""Badges and first cells of the notebooks, for Colab: `python experiments/notebooks/colab.py` writes them again.

The address is `[project.urls] Repository` of pyproject.toml. As long as there is none, the badge opens Colab, where the
notebook and the wheel (`uv build`) are uploaded, and the first cell installs this wheel.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parent
BADGE_ID, INSTALL_ID = "colab-badge", "colab-install"
_COLAB = "https://colab.research.google.com"


def badge(name: str, repository: str | None) -> str:
    """Markdown of a notebook's badge."""
    image = f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]"
    if repository is None:
        return f"{image}({_COLAB}/) Upload this notebook, and the wheel that `uv build` puts into `dist/`."
    path = f"{repository.removeprefix('https://github.com/')}/blob/main/experiments/notebooks/{name}"
    return f"{image}({_COLAB}/github/{path})"


def install(repository: str | None) -> str:
    """Source of the cell that installs the library on Colab, and does nothing elsewhere."""
    wheel = "./hades_distillation-*.whl" if repository is None else f'"hades-distillation @ git+{repository}"'
    return f'import sys\n\nif "google.colab" in sys.modules:\n    %pip install --quiet {wheel}'


def with_colab(notebook: nbformat.NotebookNode, name: str, repository: str | None) -> nbformat.NotebookNode:
    """The notebook with its badge and first cell; the numbers of its executed cells go on behind that."""
    others = [cell for cell in notebook.cells if cell.get("id") not in (BADGE_ID, INSTALL_ID)]
    first = nbformat.v4.new_code_cell(install(repository), id=INSTALL_ID, execution_count=1)
    for count, cell in enumerate((cell for cell in others if cell.cell_type == "code"), start=2):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    notebook.cells = [nbformat.v4.new_markdown_cell(badge(name, repository), id=BADGE_ID), first, *others]
    return notebook


def repository_of(pyproject: Path) -> str | None:
    """The address of the repository, None as long as there is none."""
    urls = tomllib.loads(pyproject.read_text())["project"].get("urls", {})
    return urls.get("Repository")


def main() -> None:
    """Writes badge and first cell of every notebook."""
    repository = repository_of(FOLDER.parents[1] / "pyproject.toml")
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = with_colab(nbformat.read(path, as_version=4), path.name, repository)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
