"""Which package may import which, what importing costs, and that public names say what they are."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hades

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("hades", "envs", "experiments")


def imported(source: str) -> set[str]:
    """The packages that a module imports anywhere, also within functions; doctests may use the others."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant) and leaf.value}
    return {str(name).partition(".")[0] for name in names}


@pytest.mark.parametrize(("package", "forbidden"), [("hades", {"envs", "experiments"}), ("envs", {"experiments"})])
def test_imports_point_one_way(package, forbidden):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    found = {str(file.relative_to(ROOT)): imported(file.read_text()) & {*PACKAGES, "tests"} for file in files}
    assert {file: names for file, names in found.items() if names & (forbidden | {"tests"})} == {}
    assert any(names == {"hades"} for names in found.values())


@pytest.mark.parametrize(
    "source",
    ["import envs.brax", "def f():\n    from envs import make", "importlib.import_module(f'envs.{name}')"],
)
def test_the_search_for_imports_finds_them(source):
    assert "envs" in imported(source)


def test_importing_hades_is_free_of_simulators_and_of_devices():
    program = """
import sys, json
import hades
from jax._src import xla_bridge
print(json.dumps([sorted({name.partition(".")[0] for name in sys.modules}), xla_bridge.backends_are_initialized()]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    modules, started = json.loads(done.stdout)
    assert "hades" in modules
    assert not {"brax", "gymnax", "mujoco", "matplotlib", "envs", "experiments"} & set(modules)
    assert not started


def test_public_names_exist_and_have_docstrings():
    assert sorted(hades.__all__) == hades.__all__
    for name in hades.__all__:
        public = getattr(hades, name)
        if inspect.ismodule(public) or callable(public):
            # A dataclass without one gets its signature.
            assert public.__doc__, name
            assert not public.__doc__.startswith(f"{name}("), name
