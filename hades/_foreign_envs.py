"""Telling a script that its `import envs` finds another package than the environments beside hades."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

_ENVS = Path(__file__).resolve().parents[1] / "envs"


def warn_of_foreign_envs() -> None:
    """Warns where a folder of the user's has the name of the package of environments, and is found in its place.

    Nothing is imported: only the place is looked up. Says nothing under `python -m hades`, which imports its own.
    """
    if sys.argv[:1] == ["-m"]:  # Of a package whose module is yet to be found.
        return
    try:
        spec = importlib.util.find_spec("envs")
    except ValueError:
        return  # A module that was made by hand.
    if spec is None or spec.origin is None or not (_ENVS / "__init__.py").exists():
        return
    if Path(spec.origin).resolve().parent != _ENVS:
        warnings.warn(
            f"import envs finds {spec.origin}, not the environments that were installed with hades: "
            f"sys.path.insert(0, {str(_ENVS.parent)!r}) before it finds those, or give the other folder another name",
            stacklevel=2,
        )
