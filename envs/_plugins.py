"""Plug-ins: modules of users that register their environments, loaded once, when environments are first asked for."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

VARIABLE = "HADES_PLUGINS"
"""The environment variable: importable modules or paths of `.py` files, separated by commas."""

GROUP = "hades.environments"
"""The entry point group: modules, or functions without arguments, of installed packages."""

_loaded: set[str] = set()


def load() -> None:
    """Loads every plug-in that has not been loaded.

    Raises:
        ValueError: One cannot be loaded; the sentence names it and what it raised.
    """
    for entry in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        _once(entry, f"{VARIABLE}: {entry}", functools.partial(_import, entry))
    for point in importlib.metadata.entry_points(group=GROUP):
        source = f"entry point {point.name} of {GROUP}: {point.value}"
        _once(source, source, functools.partial(_enter, point))


def _once(key: str, source: str, load_plugin: Callable[[], None]) -> None:
    if key in _loaded:
        return
    # Beforehand, as a plug-in may itself ask for environments.
    _loaded.add(key)
    try:
        load_plugin()
    except Exception as error:
        _loaded.discard(key)
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ValueError(f"{source} cannot be loaded as a plug-in: {type(error).__name__}: {reason}") from error


def _enter(point: importlib.metadata.EntryPoint) -> None:
    loaded = point.load()
    if callable(loaded):
        loaded()


def _import(entry: str) -> None:
    if not entry.endswith(".py"):
        importlib.import_module(entry)
        return
    path = Path(entry).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"expected a file at {path}, got none")
    name = f"hades_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # as the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
