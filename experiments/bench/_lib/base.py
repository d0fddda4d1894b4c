"""The common base of benchmarks: flags, the result with its provenance, tables, and the JSON file."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from experiments.arguments import parse, print_json, with_folder
from experiments.bench._lib.seeds import parse_seeds
from experiments.cli import BadArgumentsError
from experiments.presets import Preset, get_preset
from experiments.processes import leave_memory
from experiments.settings import OutputSettings, SeededSettings
from experiments.void import refuse_void
from hades._files import write_atomically
from hades._json import to_json
from hades._provenance import installed_versions
from hades.sharding import divide_cpu


@dataclass(frozen=True, kw_only=True)
class BenchSettings(OutputSettings):
    """Settings of every benchmark."""

    out: Path | None = None
    """JSON file to write; default: none."""

    @property
    def result_file(self) -> Path | None:
        """File of the result; None writes none."""
        return self.out

    @property
    def cpu_devices(self) -> int | None:
        """Devices that a CPU is made before JAX is asked for any; None leaves it as it is."""
        return None

    def refuse_lists(self) -> None:
        """Refuses flags whose values hold one twice, which would count as two, or hold none.

        Raises:
            BadArgumentsError: One does; the message names the flag.
        """
        for field in dataclasses.fields(self):
            found = getattr(self, field.name)
            # Files have no flag, and are compared where they are read.
            if not isinstance(found, tuple) or found == field.default or any(isinstance(item, Path) for item in found):
                continue
            if not found or len(set(found)) < len(found):
                flag, given = f"--{field.name.replace('_', '-')}", shlex.join(map(str, found)) or "none"
                raise BadArgumentsError(f"{flag}: expected one or more, each once, got {given}")

    def void_flags(self) -> dict[str, str]:
        """Flags that others make void, with what does, as `experiments.void.refuse_void` takes them."""
        return {}


@dataclass(frozen=True, kw_only=True)
class SeededBenchSettings(BenchSettings, SeededSettings):
    """Settings of benchmarks whose random numbers all come from one seed."""


@dataclass(frozen=True, kw_only=True)
class SeedsBenchSettings(BenchSettings):
    """Settings of benchmarks that compare several seeds."""

    seeds: str = "0-4"
    """Seeds, such as 0-4 or 0,2,5."""

    def __post_init__(self) -> None:
        """Refuses a text that holds no seeds."""
        parse_seeds(self.seeds)

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds as numbers."""
        return parse_seeds(self.seeds)


@dataclass(frozen=True)
class Report:
    """A result as it is measured.

    Attributes:
        content: The result, which JSON can hold; it begins with its provenance.
        file: JSON file that it is kept in; None keeps it nowhere.
    """

    content: dict[str, Any]
    file: Path | None = None

    def add(self, **parts: Any) -> None:
        """Adds parts, and writes the file, so that a benchmark that is stopped leaves its measurements."""
        self.content.update(parts)
        if self.file is not None:
            write(self.content, self.file)

    @property
    def command(self) -> str:
        """The command that makes the result again."""
        return shlex.join(self.content["command"])


S = TypeVar("S", bound=BenchSettings)


@dataclass(frozen=True)
class Bench(Generic[S]):
    """A benchmark: a module of this package has one by the name `BENCH`.

    Attributes:
        settings: Flags, a dataclass whose docstrings are the help.
        measure: `measure(settings, report)` measures, and adds to the report.
        render: `render(result)`: tables and sentences for the terminal.
        passed: `passed(result)`: whether the exit code is 0.
        in_processes: Whether processes of their own are measured, to which this one leaves the memory of GPUs.
    """

    settings: type[S]
    measure: Callable[[S, Report], None]
    render: Callable[[Mapping[str, Any]], str]
    passed: Callable[[Mapping[str, Any]], bool] = lambda result: True
    in_processes: bool = False


def launch(name: str, bench: Bench[Any], arguments: Sequence[str]) -> int:
    """Runs `hades bench NAME ARGUMENTS` and returns its exit code.

    Raises:
        BadArgumentsError: A flag is wrong.
        OSError: The result cannot be written.
        ValueError: A measurement failed.
    """
    settings = parse(bench.settings, f"bench {name}", arguments)
    settings.refuse_lists()
    refuse_void(arguments, settings.void_flags())
    if settings.cpu_devices is not None:
        divide_cpu(settings.cpu_devices)
    if bench.in_processes:
        leave_memory()
    report = Report(provenance(name, arguments), settings.result_file)
    bench.measure(settings, report)
    print(bench.render(report.content))
    print(f"{report.command}; on {', '.join(report.content['device'])}")
    if report.file is not None:
        write(report.content, report.file)
        print(f"written to {report.file}")
    if settings.json:
        print_json(report.content)
    return 0 if bench.passed(report.content) else 1


def provenance(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Command line, versions, git commit and devices, which every result begins with.

    Args:
        name: Name of the benchmark.
        arguments: Arguments behind its name.
    """
    versions = installed_versions()
    return {
        "benchmark": name,
        "command": ["hades", "bench", name, *arguments],
        "git_commit": versions["git_commit"],
        "device": versions["devices"],
        "cpu_count": os.cpu_count(),
        "versions": versions,
    }


def write(result: Mapping[str, Any], out: Path) -> None:
    """Writes a result as indented JSON, into a folder that is made where there is none.

    Raises:
        OSError: It cannot be written.
    """
    write_atomically(with_folder(out), to_json(result, indent=2) + "\n")


def write_page(file: Path, *parts: str) -> None:
    """Writes paragraphs and tables of Markdown, with empty lines between them.

    Raises:
        OSError: It cannot be written.
    """
    write_atomically(file, "\n\n".join(parts) + "\n")


def tell(text: str) -> None:
    """Prints a line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def find_preset(flag: str, command: str, name: str) -> Preset:
    """The preset that a flag names.

    Raises:
        BadArgumentsError: There is none of that name.
    """
    try:
        return get_preset(command, name)
    except ValueError as error:
        raise BadArgumentsError(f"--{flag}: {str(error).removeprefix('preset: ')}") from None
