"""Outside of the repository: archives that install and run, and files for Docker, Colab, GitHub and pre-commit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
import yaml

from experiments.notebooks import colab
from hades._version import __version__

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))


def run(arguments: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(arguments, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def locked(package: str) -> set[str]:
    """Versions of a package in uv.lock."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {entry["version"] for entry in packages if entry["name"] == package}


def test_hooks_have_the_ruff_of_the_lock() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    pinned = {requirement for hook in repository["hooks"] for requirement in hook["additional_dependencies"]}
    assert pinned == {f"ruff=={version}" for version in locked("ruff")}
    assert [hook["entry"].split()[:2] for hook in repository["hooks"]] == [["ruff", "check"], ["ruff", "format"]]


def test_workflow_calls_the_script_of_ci_on_the_versions_that_are_promised() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    job = jobs["check"]
    assert {"run": "make coverage"} in jobs["coverage"]["steps"]
    assert {"run": "bash .ci/run"} in job["steps"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = [text.rpartition(" ")[2] for text in classifiers if re.search(r":: 3\.\d+$", text)]
    assert job["strategy"]["matrix"]["python"] == promised == ["3.11", "3.12"]


def test_image_is_built_from_what_is_there_by_the_uv_of_the_makefile() -> None:
    text = (ROOT / "Dockerfile").read_text()
    (version,) = re.findall(r"uv==(\S+)", text)
    assert f"UV_VERSION := {version}" in (ROOT / "Makefile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line]
    sources = {source for sources in copied for source in sources}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(included["only-include"]) < sources


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_the_badge_and_the_first_cell_that_colab_py_writes(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    before = json.dumps(notebook, sort_keys=True)
    assert [cell["id"] for cell in notebook.cells[:2]] == [colab.BADGE_ID, colab.INSTALL_ID]
    repository = colab.repository_of(ROOT / "pyproject.toml")
    assert json.dumps(colab.with_colab(notebook, path.name, repository), sort_keys=True) == before


def test_badges_lead_to_the_address_of_the_project_once_it_has_one() -> None:
    address = "https://github.com/someone/something"
    assert "colab.research.google.com/github/someone/something/blob/main/experiments/notebooks/x.ipynb)" in colab.badge(
        "x.ipynb", address
    )
    assert f'"hades-distillation @ git+{address}"' in colab.install(address)
    assert "./hades_distillation-*.whl" in colab.install(None)


def interpreters() -> list[str]:
    """This interpreter, and one of each other version that is promised and found."""
    found = {sys.version_info[:2]: sys.executable}
    for version in ((3, 11), (3, 12)):
        name = "python{}.{}".format(*version)
        pyenv = (Path.home() / ".pyenv" / "versions").glob("{}.{}.*/bin/python".format(*version))
        for candidate in (shutil.which(name), *sorted(pyenv)):
            works = (
                candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0
            )
            if works and version not in found:
                found[version] = str(candidate)
    return list(found.values())


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheel and sdist of this tree, the wheel being built from the sdist as pip does."""
    folder = tmp_path_factory.mktemp("archives")
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder], ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    tree = folder / sdist.name.removesuffix(".tar.gz")
    assert (tree / "experiments" / "notebooks" / "00_quickstart.ipynb").exists()
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], tree)
    (wheel,) = folder.glob("*.whl")
    return {"wheel": wheel, "sdist": sdist}


@pytest.mark.slow
@pytest.mark.parametrize("python", interpreters())
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_archive_installs_and_runs_where_nothing_else_is(
    kind: str, python: str, archives: dict[str, Path], tmp_path: Path
) -> None:
    """Packages come from the registry that pip is configured for."""
    run([python, "-m", "venv", tmp_path / "venv"], tmp_path)
    bin = tmp_path / "venv" / "bin"
    run([bin / "pip", "install", "--quiet", archives[kind]], tmp_path)
    assert run([bin / "hades", "--version"], tmp_path).stdout.strip() == __version__
    run([bin / "hades", "distill", "--preset", "cartpole", "--out", "run"], tmp_path)
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert told
    run([bin / "hades", "export", "run", "--format", "numpy", "--out", "policy.npz"], tmp_path)
    program = "from player import Player; import numpy as np; print(Player('policy.npz')(np.zeros(4)).shape)"
    assert run([bin / "python", "-c", program], tmp_path).stdout == "()\n"
