"""Every notebook runs from top to bottom, in a kernel of its own."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.tiny import at_tiny_sizes

NOTEBOOKS = sorted((Path(__file__).parents[2] / "experiments" / "notebooks").glob("*.ipynb"))
# A minute of a core.
SLOW = ("01_offline", "02_policy_gradient")
TINY = [pytest.param(path, True, id=f"{path.stem}-tiny") for path in NOTEBOOKS if path.stem not in SLOW]
WHOLE = [pytest.param(path, False, id=path.stem, marks=pytest.mark.slow) for path in NOTEBOOKS]


def check_quickstart(notebook):
    """Distilled policies balance."""
    assert printed_score(notebook, "distilled")[0] > 450


def check_offline(notebook):
    """It distils what random pairs do not teach."""
    mean, low, high = printed_score(notebook, "distilled")
    assert low < mean < high
    for name in ("random real pairs", "zero dataset", "untrained policy"):
        assert printed_score(notebook, name)[2] < low - 300
    # The weights of Av-PBC are action values: below 0 they would drive policies away from the teacher.
    assert printed_score(notebook, "action values")[0] > 0


def check_policy_gradient(notebook):
    """It distils what trains others, too."""
    for name in ("own steps", "Adam", "Adam, wider"):
        assert -130 < printed_score(notebook, name)[0] < 0
    assert printed_score(notebook, "zeros")[0] < -400


def printed_score(notebook, name):
    """The numbers that an executed notebook printed behind `name:`, in their order."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    (line,) = (line for line in printed.splitlines() if line.strip().startswith(f"{name}:"))
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", line.partition(":")[2])]


CHECKS = {
    "00_quickstart": check_quickstart,
    "01_offline": check_offline,
    "02_policy_gradient": check_policy_gradient,
}


# The kernel's machinery opens sockets and event loops that it closes after the test has ended.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::pytest.PytestWarning")
@pytest.mark.parametrize(("path", "tiny"), TINY + WHOLE)
def test_notebook_runs_and_keeps_its_outputs(path, tiny, tmp_path):
    stored = nbformat.read(path, as_version=4)
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code"), "commit it with its outputs"
    shutil.copy(path, tmp_path)
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    for cell in notebook.cells:
        if tiny and cell.cell_type == "code":
            cell.source = at_tiny_sizes(cell.source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    errors = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert not errors
    if not tiny:
        CHECKS[path.stem](notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_say_what_the_text_says(path):
    CHECKS[path.stem](nbformat.read(path, as_version=4))
