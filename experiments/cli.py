"""The `hades` command: verbs, exit codes and errors. Each verb has a module of its name."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

from hades.compilation_cache import configure_environment

_DONE, _FAILED, _BAD_ARGUMENTS = 0, 1, 2

_VERBS = {
    "distill": "evolve a few state-action pairs that train a policy",
    "baseline": "neuroevolution or PPO, to compare with",
    "merge": "merge dataset files into one that trains a policy for all their tasks",
    "train": "train a policy of any architecture on a dataset file",
    "evaluate": "score a dataset, run or policy file on fresh keys",
    "export": "write a policy for use without JAX: NumPy, ONNX, or Flax parameters",
    "report": "make a page about runs: curves, pairs, a film",
    "render": "film a policy as a GIF",
    "info": "tell what a dataset file or run directory holds",
    "zoo": "list, show and verify the datasets that come with the package",
    "offline": "collect data, teach a teacher, and distil without a simulator",
    "images": "distil labelled images into a few, and evaluate networks trained on them",
    "launch": "run a grid of environments, methods, seeds and settings, here or by Slurm",
    "bench": "measure speed, memory and generalisation",
}


class BadArgumentsError(ValueError):
    """The arguments of the command do not go together: exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hades VERB ...` and returns its exit code.

    0 done; 1 the work failed; 2 bad arguments; 130 and 143 stopped by Ctrl-C and SIGTERM.
    """
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except Exception:
        if _is_one_of_several():
            traceback.print_exc()
            _end_process(_FAILED)
        raise
    if code in (_FAILED, _BAD_ARGUMENTS) and _is_one_of_several():
        _end_process(code)
    return code


def _is_one_of_several() -> bool:
    """Whether this is one of the processes of one run; a command that never came to ask is not."""
    multihost = sys.modules.get("hades.multihost")
    return multihost is not None and bool(multihost.are_several())


def _end_process(code: int) -> None:
    """Ends the process at once: at a usual end it would wait for the others of its run, which wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage("hades VERB", _VERBS))
        return _DONE if arguments else _BAD_ARGUMENTS
    if arguments[0] == "--version":
        from hades._version import __version__

        print(__version__)
        return _DONE
    verb, rest = arguments[0], arguments[1:]
    if verb not in _VERBS:
        return _say(f"there is no verb {verb!r}, expected one of {', '.join(_VERBS)}", _BAD_ARGUMENTS)
    try:
        _configure_jax(verb)
        import jax  # Not before its cache was set up.
    except ValueError as error:
        # A variable such as JAX_ENABLE_X64 has a value that JAX does not know.
        return _say(f"{verb}: {error}", _BAD_ARGUMENTS)
    # With --json only the last line, the object, goes to stdout.
    to_stderr = contextlib.redirect_stdout(sys.stderr) if "--json" in rest else contextlib.nullcontext()
    try:
        with to_stderr:
            module = "experiments.bench" if verb == "bench" else f"experiments.commands.{verb}"
            code = int(importlib.import_module(module).main(rest))
        sys.stdout.flush()
        return code
    except BadArgumentsError as error:
        return _say(f"{verb}: {error}", _BAD_ARGUMENTS)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        return _say(f"{verb}: {_reason(error)}", _FAILED)
    except KeyboardInterrupt:
        return _say(f"{verb}: stopped", 130)
    except (RuntimeError, AssertionError) as error:
        reason = _platform_problem()
        if reason is None and isinstance(error, jax.errors.JaxRuntimeError):
            reason = str(error).partition("\n")[0]
        if reason is None:
            raise
        return _say(f"{verb}: {reason}", _FAILED)


def _configure_jax(verb: str) -> None:
    """Turns on the persistent compilation cache, unless the user has set one or has no home directory to keep it in."""
    try:
        configure_environment()
    except RuntimeError:
        _say(f"{verb}: no compilation cache, as the home directory is not known; set HOME or XDG_CACHE_HOME", _DONE)


def _platform_problem() -> str | None:
    """The reason why JAX has no devices, where a variable asks for platforms that it does not find; otherwise None."""
    import jax

    wanted = os.environ.get("JAX_PLATFORMS", "")
    if not wanted:
        return None
    try:
        jax.devices()
        return None
    except (RuntimeError, AssertionError):
        jax.config.update("jax_platforms", None)
    found = sorted({device.platform for device in jax.devices()})
    return f"JAX_PLATFORMS: expected platforms that JAX finds here, such as {', '.join(found)}, got {wanted!r}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _say(sentence: str, code: int) -> int:
    print("hades " + " ".join(sentence.split()), file=sys.stderr)
    return code


def launch_named(
    command: str,
    kind: str,
    summaries: Mapping[str, str],
    arguments: Sequence[str],
    launch: Callable[[str, Sequence[str]], int],
) -> int:
    """Launches what the name behind a command stands for, or prints the names where help was asked for.

    Args:
        command: Words before the name, such as `"hades offline"`.
        kind: Noun for what is named, with its article, for messages.
        summaries: One sentence for each name.
        arguments: Arguments behind the command.
        launch: `launch(name, arguments behind it)` returns the exit code.

    Raises:
        BadArgumentsError: There is none of that name.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(_usage(f"{command} NAME", summaries))
        return _DONE
    if not arguments or arguments[0] not in summaries:
        found = f", got {arguments[0]!r}" if arguments else ""
        raise BadArgumentsError(f"expected the name of {kind}, one of {', '.join(summaries)}{found}")
    return launch(arguments[0], arguments[1:])


def _usage(command: str, summaries: Mapping[str, str]) -> str:
    """Help of a command that a name follows: the names, each with its summary."""
    width = max(map(len, summaries)) + 2
    lines = [f"  {name:<{width}}{summary}" for name, summary in summaries.items()]
    return "\n".join([f"usage: {command} [--help] ...", "", *lines])


if __name__ == "__main__":
    import hades_command

    sys.exit(hades_command.main())
