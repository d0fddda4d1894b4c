"""`python -m hades`: the command that this distribution installs.

The library imports nothing of the command: the entry point that the distribution names is looked up and called.
"""

from __future__ import annotations

import sys
from importlib import metadata

_DISTRIBUTION = "hades-distillation"


def main() -> int:
    """Runs the console script `hades` and returns its exit code."""
    try:
        (script,) = metadata.distribution(_DISTRIBUTION).entry_points.select(group="console_scripts", name="hades")
    except metadata.PackageNotFoundError:
        print(f"hades: expected {_DISTRIBUTION} to be installed, as by pip, for python -m hades", file=sys.stderr)
        return 1
    if not sys.flags.safe_path:
        # The working directory, which `python -m` puts in front: nothing of the user's is imported by accident.
        del sys.path[0]
    return int(script.load()() or 0)


if __name__ == "__main__":
    sys.exit(main())
