"""Every notebook runs from top to bottom, in a kernel of its own."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "experiments" / "notebooks").glob("*.ipynb"))


# The kernel's machinery opens sockets and event loops that it closes after the test has ended.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::pytest.PytestWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_keeps_its_outputs(path, tmp_path):
    stored = nbformat.read(path, as_version=4)
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code"), "commit it with its outputs"
    shutil.copy(path, tmp_path)
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    errors = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert not errors


def test_quickstart_notebook_ends_with_policies_that_balance(tmp_path):
    stored = nbformat.read(NOTEBOOKS[0], as_version=4)
    printed = [
        output.text
        for cell in stored.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and "distilled" in output.text
    ]
    distilled = float(printed[0].split("distilled:")[1].split()[0])
    assert distilled > 450
