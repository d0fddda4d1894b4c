"""The console script `hades`, and the start of every process of its own.

Light on purpose: from the first milliseconds on a signal ends the process with one sentence. The packages of this
distribution are those beside this file, whatever folders of the same names the working directory or PYTHONPATH has.
`hades -m MODULE ...` runs one of their modules as a program, which is how benchmarks measure in processes apart.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder

_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = ("hades", "envs", "experiments")
_BROKEN_PIPE = 128 + 13


class _OwnPackages:
    """An importer that finds the packages of this distribution beside this file, and no others."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """The package of this name; None leaves it to the other importers."""
        return PathFinder.find_spec(name, [_HERE]) if name in _PACKAGES else None


def main() -> int:
    """Runs the arguments of the process and returns its exit code."""
    if _OwnPackages not in sys.meta_path:
        sys.meta_path.insert(0, _OwnPackages)
    # XLA's CPU backend factorises by the BLAS of SciPy, whose threads wait for each other wherever something else runs:
    # four orthogonal initialisations then take seconds rather than 12 ms.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from experiments.stopping import end_process_on_signals

    arguments = sys.argv[1:]
    end_process_on_signals(" ".join(["hades", *arguments[:1]]) if arguments[:1] != ["-m"] else "hades")
    try:
        return _start(arguments)
    except BrokenPipeError:
        # The reader has had enough, as head has; what is still buffered must not complain either.
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        return _BROKEN_PIPE


def _start(arguments: list[str]) -> int:
    if arguments[:1] != ["-m"] or len(arguments) == 1:
        from experiments import cli

        return cli.main(arguments)
    import runpy

    module, sys.argv[1:] = arguments[1], arguments[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
