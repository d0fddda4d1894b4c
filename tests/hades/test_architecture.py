"""Which package may import which, what importing costs, and that public names say what they are."""

from __future__ import annotations

import ast
import graphlib
import inspect
import json
import os
import re
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
at_once = "jax" in sys.modules
for name in hades.__all__:
    name == "testing" or getattr(hades, name)
from jax._src import xla_bridge
names = sorted({name.partition(".")[0] for name in sys.modules} | {"flax.nnx"} & set(sys.modules))
started = xla_bridge.backends_are_initialized()
import envs
envs.make("gymnax/CartPole-v1")
print(json.dumps([at_once, names, started, sorted({"pandas", "scipy.stats"} & set(sys.modules))]))
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
    at_once, modules, started, of_pictures = json.loads(done.stdout)
    assert not at_once  # It takes most of the time, and comes with the first name that needs it.
    assert {"hades", "jax"} <= set(modules)
    assert not {"brax", "gymnax", "mujoco", "matplotlib", "envs", "experiments"} & set(modules)
    # Each takes half a second of every process.
    assert not {"scipy", "flax.nnx", "orbax.checkpoint", "chex"} & set(modules)
    assert not started
    # What gymnax draws with takes two more.
    assert of_pictures == []


def test_public_names_exist_and_have_docstrings():
    assert sorted(hades.__all__) == hades.__all__
    for name in hades.__all__:
        public = getattr(hades, name)
        if inspect.ismodule(public) or callable(public):
            # A dataclass without one gets its signature.
            assert public.__doc__, name
            assert not public.__doc__.startswith(f"{name}("), name


def run_time_imports(file: Path) -> set[str]:
    """Modules of hades that a module imports when it is imported itself, not within functions or for types alone."""
    module = file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    found = set()

    def visit(statements: list[ast.stmt]) -> None:
        for node in statements:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for name in ("body", "orelse", "finalbody"):
                    visit(getattr(node, name, []))

    visit(ast.parse(file.read_text()).body)
    return {name for name in found if name.startswith("hades.")} - {module}


def test_no_modules_import_each_other_in_a_circle():
    files = sorted((ROOT / "hades").rglob("*.py"))
    names = {
        file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): file
        for file in files
    }
    graph = {name: run_time_imports(file) & set(names) for name, file in names.items() if name != "hades"}
    assert sum(map(len, graph.values())) > 100
    order = graphlib.TopologicalSorter(graph)
    try:
        order.prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_search_for_circles_sees_run_time_imports_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "hades" / "a.py"
    file.parent.mkdir()
    file.write_text(
        "from hades import b\nif TYPE_CHECKING:\n    import hades.c\nelse:\n    import hades.d\n"
        "class A:\n    from hades.e import x\ndef f():\n    import hades.g\n"
    )
    assert run_time_imports(file) == {"hades.b", "hades.d", "hades.e", "hades.e.x"}


def test_streams_of_keys_are_numbered_in_one_module():
    files = [file for package in ("hades", "envs") for file in sorted((ROOT / package).rglob("*.py"))]
    found = {str(file.relative_to(ROOT)) for file in files if re.search(r"2 ?\*\* ?32 ?- ?\d", file.read_text())}
    assert found == {"hades/keys.py"}
