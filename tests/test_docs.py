"""Documentation: programs run, names exist, the site builds without a warning, and links lead to files."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import pkgutil
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import envs
import hades
from hades.policy_file import is_policy_file
from tests.tiny import at_tiny_sizes

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
HOWTOS = sorted(path for path in (DOCS / "howto").glob("*.md") if path.stem != "index")
# 10 to 20 seconds of a core.
SLOW_HOWTOS = ("export-a-policy", "own-environment", "own-logger", "own-objective", "several-seeds", "warm-start")
SLOW_PAGES = ("images", "index")
MAX_HOWTO_LINES = 20
ENTRY_POINT_GROUPS = ("hades.environments",)


def programs(page: Path) -> list[tuple[int, str]]:
    """The page's Python blocks with the number of the line before each."""
    text = page.read_text()
    blocks = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in blocks]


def run_page(page: Path) -> dict[str, object]:
    """Executes a page's blocks one after the other in one namespace, at tiny sizes."""
    namespace: dict[str, object] = {"__name__": page.stem}
    for line, source in programs(page):
        # Empty lines in front: tracebacks name the line of the page.
        exec(compile("\n" * line + at_tiny_sizes(source), str(page), "exec"), namespace)
    return namespace


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page.stem in SLOW_PAGES else [])
        for page in PAGES
        if programs(page) and page not in HOWTOS
    ],
    ids=lambda page: page.stem,
)
def test_the_programs_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.stem in SLOW_HOWTOS else []) for page in HOWTOS],
    ids=lambda page: page.stem,
)
def test_a_howto_runs_and_the_command_evaluates_its_files(page, tmp_path, monkeypatch, capfd):
    from experiments import cli

    monkeypatch.chdir(tmp_path)
    run_page(page)
    files = sorted(tmp_path.glob("*.npz"))
    assert files
    capfd.readouterr()
    for file in files:
        trains = [] if is_policy_file(file) else ["--num-inits", "2"]
        code = cli.main(["evaluate", str(file), *trains, "--num-episodes", "2", "--json"])
        out, err = capfd.readouterr()
        with np.load(file) as arrays:
            cloning = json.loads(str(arrays["metadata"]))["cloning"]
        if cloning is None:
            assert code == 1, err
            assert "inner loop" in err and "Traceback" not in err
        else:
            assert code == 0, err
            assert math.isfinite(json.loads(out.splitlines()[-1])["mean"])


def test_there_are_ten_howtos_and_an_index_of_them():
    assert len(HOWTOS) == 11
    index = (DOCS / "howto" / "index.md").read_text()
    assert [page.name for page in HOWTOS if f"({page.name})" not in index] == []


@pytest.mark.parametrize("page", HOWTOS, ids=lambda page: page.stem)
def test_a_howto_is_short(page):
    lines = [line for _, source in programs(page) for line in source.splitlines() if line.strip()]
    code = [line for line in lines if not re.match(r"(import|from) ", line)]
    assert 0 < len(code) <= MAX_HOWTO_LINES
    assert max(map(len, lines)) <= 120


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def documented(site):
    """Every name that the API pages have an entry for, read from the site's inventory."""
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}


def public_modules() -> list[str]:
    """Modules of the library and the adapters without an underscore anywhere in their names."""
    names = ["hades", "envs"]
    for package in (hades, envs):
        names += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def home(found: object) -> str:
    """Dotted name of a class, function or module where it is defined; empty for other objects."""
    if inspect.ismodule(found):
        return found.__name__
    return f"{found.__module__}.{found.__qualname__}" if hasattr(found, "__qualname__") else ""


def resolve(name: str) -> object:
    """The object of a dotted name; raises `ImportError` or `AttributeError` where there is none."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("module", [name for name in public_modules() if hasattr(resolve(name), "__all__")])
def test_every_public_name_is_documented(module, documented):
    package = resolve(module)
    names = {name for name in package.__all__ if not name.startswith("__")}
    lost = {name for name in names if not {f"{module}.{name}", home(getattr(package, name))} & documented}
    assert lost == set()
    assert module in documented


def test_every_public_module_is_documented(documented):
    assert set(public_modules()) - documented == set()


def test_no_api_page_names_what_does_not_exist():
    named = {
        (page.name, name)
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
    }
    assert len(named) > 20
    assert missing(named) == []


def test_no_page_names_what_does_not_exist():
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"(?<![\w/.])((?:hades|envs)\.[A-Za-z_][\w.]*\w)(?!/)", prose(page.read_text()))
    }
    named -= {(page, group) for page, _ in named for group in ENTRY_POINT_GROUPS}
    assert len(named) > 20
    assert missing(named) == []


def prose(text: str) -> str:
    """Code spans of a page, without its fenced blocks."""
    return "\n".join(re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)))


def missing(named: set[tuple[str, str]]) -> list[tuple[str, str]]:
    lost = []
    for page, name in sorted(named):
        try:
            resolve(name)
        except (ImportError, AttributeError):
            lost.append((page, name))
    return lost


def test_the_search_for_names_finds_what_is_missing():
    found = {("page", name) for name in ("hades.distill", "hades.run.Run", "hades.nothing", "envs.nowhere.make")}
    assert missing(found) == [("page", "envs.nowhere.make"), ("page", "hades.nothing")]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    relative = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_the_site_loads_nothing_from_elsewhere(site):
    loaded = (
        r"<(?:script|img|iframe)[^>]+src=[\"']?https?://|<link(?![^>]*rel=[\"']?canonical)[^>]+href=[\"']?https?://"
    )
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []
