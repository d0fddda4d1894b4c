"""Grid files: TOML that says which runs belong together, and how they are launched."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from experiments.arguments import canonical_flag, expand
from experiments.cli import BadArgumentsError
from experiments.launching.commands import COMMAND_NAMES
from experiments.launching.member_process import MemberFiles
from experiments.launching.settings import LocalSettings, SlurmSettings
from hades._files import refusing
from hades._serialization import from_dict

LAUNCH_FOLDER = "launch"
"""Folder beside the run directories for what launchers keep: logs, records and the grid."""

_OWNED_FLAGS = {
    "out": "each run has a folder in the `out` at the top of the file",
    "resume": "every run is begun or resumed as it stands",
    "help": "it starts nothing",
    "multihost": "runs of several processes have it by [slurm]",
}


@dataclass(frozen=True, kw_only=True)
class _GridFile:
    """Content of a grid file, in the names of its keys."""

    command: str = "distill"
    out: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)
    grids: tuple[Mapping[str, Any], ...] = ()
    runs: tuple[Mapping[str, Any], ...] = ()
    local: LocalSettings = LocalSettings()
    slurm: SlurmSettings = field(default_factory=SlurmSettings)

    def __post_init__(self) -> None:
        if self.command not in COMMAND_NAMES:
            raise ValueError(f"command: expected one of {', '.join(COMMAND_NAMES)}, got {self.command!r}")


@dataclass(frozen=True)
class Member:
    """One run of a grid.

    Attributes:
        name: Name of its folder, made of the values that are its own.
        command: Words behind `hades`, such as `"baseline es"`.
        flags: Flags by name, without dashes in front: a text, number or boolean, or a list of texts or numbers.
        out: Run directory.
        files: Files that launchers keep of it.
    """

    name: str
    command: str
    flags: Mapping[str, Any]
    out: Path
    files: MemberFiles

    @property
    def arguments(self) -> list[str]:
        """Arguments of `hades` that begin the run, or go on with it."""
        flags = [word for name, value in self.flags.items() for word in _words(name, value)]
        return [*self.command.split(), *flags, f"--out={self.out}", "--resume"]


@dataclass(frozen=True)
class Grid:
    """Runs that belong together.

    Attributes:
        path: Grid file.
        command: Words behind `hades`, such as `"baseline es"`.
        out: Folder of all run directories.
        members: Its runs, none twice.
        local: Settings of a launch on this machine.
        slurm: Settings of a launch through Slurm.
    """

    path: Path
    command: str
    out: Path
    members: tuple[Member, ...]
    local: LocalSettings
    slurm: SlurmSettings

    @property
    def launch_folder(self) -> Path:
        """Folder for what launchers keep."""
        return self.out / LAUNCH_FOLDER


def load_grid(path: Path) -> Grid:
    """Reads a grid file.

    Raises:
        BadArgumentsError: There is none, or it is malformed; one sentence names the file and the key.
    """
    with refusing(path, BadArgumentsError):
        content = _read(path)
        out = Path("runs", path.stem) if content.out is None else expand(str(content.out))
        return Grid(path, content.command, out, tuple(_members(content, out)), content.local, content.slurm)


def _read(path: Path) -> _GridFile:
    try:
        return from_dict(_GridFile, tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise ValueError("expected a TOML file, found none") from None
    except OSError as error:
        raise ValueError(f"expected a readable TOML file, got: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"expected TOML, got other bytes ({error.reason})") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"expected TOML, got: {error}") from None


def _members(content: _GridFile, out: Path) -> Iterator[Member]:
    """All runs of a file.

    Raises:
        ValueError: There are none, or two have the same folder.
    """
    shared, own = _flags("flags", content.flags), list(_own_flags(content))
    if not own:
        raise ValueError("grid: expected lists of values in [grid] or [[grids]], or flags in [[runs]], got no run")
    names = [name for name, _ in own]
    for name, flags in own:
        if names.count(name) > 1:
            raise ValueError(f"grid: expected runs of different values, got two with the folder {out / name}")
        yield Member(name, content.command, shared | flags, out / name, MemberFiles(out / LAUNCH_FOLDER, name))


def _own_flags(content: _GridFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each run, and its flags beside those that all share."""
    tables = [("grid", content.grid)] if content.grid else []
    tables += [(f"grids[{index}]", table) for index, table in enumerate(content.grids)]
    for where, table in tables:
        if not table:
            raise ValueError(f"{where}: expected lists of values, got none")
        values = [_values(f"{where}.{name}", name, value) for name, value in _flat(table)]
        for choice in product(*values):
            flags = _once(where, choice)
            yield _name(flags), flags
    for index, table in enumerate(content.runs):
        where = f"runs[{index}]"
        flags = _flags(where, {key: value for key, value in table.items() if key != "name"})
        name = table.get("name", _name(flags))
        if not isinstance(name, str) or name == LAUNCH_FOLDER or name != _folder_name(name):
            raise ValueError(f"{where}.name: expected a name for a folder, other than {LAUNCH_FOLDER}, got {name!r}")
        yield name, flags


def _values(where: str, name: str, values: Any) -> list[tuple[str, Any]]:
    """The flag with each of its values."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"{where}: expected a list of one value or more, got {values!r}")
    return [(_flag(where, name), _value(where, value)) for value in values]


def _flags(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a table, each with its value."""
    found = _flat(table)
    return _once(where, ((_flag(f"{where}.{name}", name), _value(f"{where}.{name}", value)) for name, value in found))


def _once(where: str, flags: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    once: dict[str, Any] = {}
    for name, value in flags:
        if name in once:
            raise ValueError(f"{where}.{name}: expected each flag once, got it twice, perhaps by another name of it")
        once[name] = value
    return once


def _flat(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values of a table; in TOML a name with a dot is a table within."""
    flat: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{inner}", item) for inner, item in _flat(value)]
        else:
            flat.append((name, value))
    return flat


def _flag(where: str, name: str) -> str:
    flag = canonical_flag(name)
    if flag in _OWNED_FLAGS:
        raise ValueError(f"{where}: expected no such flag, as {_OWNED_FLAGS[flag]}")
    if not re.fullmatch(r"\w[\w.-]*", flag):
        raise ValueError(f"{where}: expected the name of a flag without dashes in front, got {name!r}")
    return flag


def _value(where: str, value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, (str, int, float)) for item in items):
        raise ValueError(f"{where}: expected a text, a number, true or false, or a list of them, got {value!r}")
    return value


def _words(name: str, value: Any) -> list[str]:
    """A flag as arguments."""
    if isinstance(value, bool):
        group, dot, last = name.rpartition(".")
        return [f"--{name}" if value else f"--{group}{dot}no-{last}"]
    return [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]


def _name(flags: Mapping[str, Any]) -> str:
    """Name of a run by its own flags: texts as they are, numbers behind their flag's name.

    Example:
        >>> _name({"env": "gymnax/CartPole-v1", "seed": 0, "cloning.hidden-sizes": [64, 64]})
        'gymnax-CartPole-v1-seed0-hidden-sizes64-64'
    """
    lasts = [name.rpartition(".")[2] for name in flags]
    parts = []
    for (name, value), last in zip(flags.items(), lasts, strict=True):
        short = last if lasts.count(last) == 1 else name
        if isinstance(value, bool):
            parts.append(short if value else f"no-{short}")
        else:
            parts.append(value if isinstance(value, str) else short + _joined(value))
    return _folder_name("-".join(parts))


def _folder_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or "run"


def _joined(value: float | Sequence[Any]) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)
