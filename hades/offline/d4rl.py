"""Files of offline data in the layout of D4RL, HDF5, read and written with h5py alone.

| key | shape | type |
|---|---|---|
| `observations` | (transitions, *observation_shape) | float32 |
| `actions` | (transitions, action_dim), or (transitions,) of discrete ones | float32, or int32 |
| `rewards` | (transitions,) or (transitions, 1) | float32 |
| `next_observations`, optional | as `observations` | float32 |
| `terminals` | as `rewards` | bool |
| `timeouts`, optional | as `terminals` | bool |

Types are those that it writes; others that hold numbers are read, too. Other keys and groups, such as `infos/` and
`metadata/`, are passed over. What this project writes also has the file attributes `env`, the name of the environment,
and `hades`, JSON that says where the data come from.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np

from hades._files import refusing, write_atomically
from hades.offline._checks import few, reason
from hades.offline.scores import d4rl_domain
from hades.offline.transitions import (
    FLAG_KEYS,
    FLOAT_KEYS,
    OfflineDataError,
    Transitions,
    check_arrays,
    unflagged_ends,
)

KEYS = (*FLOAT_KEYS, *FLAG_KEYS)

_PUBLISHED_AT = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
# Last transitions of all episodes in files of d3rlpy 1.
_D3RLPY_ENDS = "episode_terminals"
# An HDF5 attribute, its header included, fits into 64 KiB.
_MAX_ATTRIBUTE_BYTES = 60_000


def load(path: str | os.PathLike[str], env: str | None = None, trajectory_steps: int | None = None) -> Transitions:
    """Reads a file in the layout of D4RL, compressed or not.

    Without `next_observations`, they are those of the transition that follows in the same trajectory. A transition that
    ends its trajectory by timeout, or with the data, has an unknown successor then: it is dropped with its reward, and
    the one before it carries the timeout. That of a terminal state plays no part; it is filled with the observation.
    With them, a trajectory also ends where they are not the observation that follows; a warning says how often.

    Args:
        path: The file.
        env: Name of the environment; None takes that of the file's attributes, or what a name of D4RL such as
            `hopper_medium-v2.hdf5` stands for.
        trajectory_steps: Steps after which a trajectory is cut off, of a file without `timeouts`; not at all if None.

    Raises:
        OfflineDataError: There is no such file, or it is not a whole and consistent one; one sentence that names the
            file, the key and what was expected.
    """
    path = Path(path)
    with refusing(path, OfflineDataError):
        with _opened(path) as file:
            # Also of links that lead nowhere.
            with _damage_is("expected a whole HDF5 file, got damaged data"):
                present = list(file)
            _check_layout(present)
            arrays = {name: _read(file, name) for name in KEYS if name in present}
            if "timeouts" not in present and _D3RLPY_ENDS in present:
                arrays["timeouts"] = _read(file, _D3RLPY_ENDS)
            own_env = _text_attribute(file, "env")
        checked = check_arrays(arrays, trajectory_steps)
        guessed = _ends_that_are_guessed(arrays.get("timeouts"), checked, trajectory_steps)
        if guessed is not None:
            warnings.warn(f"{path}: {guessed}", stacklevel=2)
        if "next_observations" not in checked:
            checked = _with_successors(checked)
        return Transitions.from_arrays(checked, env or own_env or _env_from_name(path))


def _ends_that_are_guessed(
    given: np.ndarray | None, checked: dict[str, np.ndarray], trajectory_steps: int | None
) -> str | None:
    """Words for a warning where ends of trajectories are not those of flags alone; `given` are timeouts as read."""
    if "next_observations" in checked:
        flagged = np.zeros_like(checked["terminals"]) if given is None else given.ravel().astype(bool)
        jumps = np.count_nonzero(checked["timeouts"] & unflagged_ends(checked | {"timeouts": flagged}))
        what = "transitions without a flag end a trajectory, as their next observation is not the one that follows"
        return f"next_observations: {jumps} {what}" if jumps else None
    if given is None and trajectory_steps is None:
        ends = np.count_nonzero(checked["terminals"])
        return f"timeouts: missing, so that trajectories end at the {ends} terminals alone unless their steps are given"
    return None


def _check_layout(present: list[str]) -> None:
    if "observations" not in present and any(name.startswith("episode_") for name in present):
        raise ValueError(
            "expected D4RL's layout, found Minari's; hades offline collect --minari ID writes the dataset of that id "
            "in D4RL's"
        )
    for name in KEYS:
        if name not in present and name not in ("next_observations", "timeouts"):
            raise ValueError(f"{name}: missing, expected in every file of D4RL's layout, got {few(present)}")


def env_name(path: str | os.PathLike[str]) -> str | None:
    """Name of the environment of a file, by its attributes or its file name; None where neither has it.

    Raises:
        OfflineDataError: There is no such file, or it is not HDF5.
    """
    with refusing(path, OfflineDataError), _opened(Path(path)) as file:
        return _text_attribute(file, "env") or _env_from_name(Path(path))


def load_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Attributes of a file that `save` wrote, which describe the origin of its data; empty for other files.

    Raises:
        OfflineDataError: There is no such file, it is not HDF5, or the attribute `hades` is not a JSON object.
    """
    with refusing(path, OfflineDataError):
        with _opened(Path(path)) as file:
            text = _text_attribute(file, "hades")
        try:
            attributes = json.loads(text or "{}")
        except ValueError as error:
            raise ValueError(f"attribute hades: expected JSON, got {text!r:.60} ({error})") from None
        if not isinstance(attributes, dict):
            raise ValueError(f"attribute hades: expected a JSON object, got {text!r:.60}")
        return attributes


def save(transitions: Transitions, path: str | os.PathLike[str], attributes: Mapping[str, Any] | None = None) -> None:
    """Writes a file in the layout of D4RL v2, compressed with gzip; equal content gives equal bytes.

    Args:
        transitions: What to write, all fields.
        path: Where to, under exactly this name; what was there is replaced when the new file is whole on disk.
        attributes: Where the data come from, as JSON can hold it.

    Raises:
        OfflineDataError: They are not what `load` would accept.
        OSError: The file cannot be written; it names `path`, and what was there before is untouched.
    """
    with refusing(path, OfflineDataError):
        arrays = check_arrays({name: np.asarray(jax.device_get(getattr(transitions, name))) for name in KEYS})
        texts = {} if transitions.env is None else {"env": transitions.env}
        texts["hades"] = _to_json(attributes or {})
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in KEYS:
            file.create_dataset(name, data=arrays[name], compression="gzip", shuffle=True)
        file.attrs.update(texts)
    write_atomically(path, buffer.getvalue())


def _opened(path: Path) -> h5py.File:
    """The file, open for reading.

    Raises:
        ValueError: There is none, or it is not HDF5; one sentence, which does not name the file.
    """
    try:
        if not path.exists():
            raise ValueError(f"expected an HDF5 file, found nothing there{_where_published(path)}")
        # Also keeps it from waiting forever for a named pipe or a terminal.
        if not path.is_file():
            raise ValueError(f"expected an HDF5 file, found {'a folder' if path.is_dir() else 'a device or a pipe'}")
        with path.open("rb") as file:
            if not file.read(1):
                raise ValueError("expected an HDF5 file, found an empty file")
        if not h5py.is_hdf5(path):
            raise ValueError("expected an HDF5 file, found another format")
    except OSError as error:
        raise ValueError(f"expected a readable file, got: {error.strerror}") from None
    with _damage_is("expected a whole HDF5 file, got a truncated or damaged one"):
        return h5py.File(path, "r")


@contextmanager
def _damage_is(message: str) -> Iterator[None]:
    """Turns all that damaged bytes raise, which is almost anything, into a message with the reason."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{message} ({reason(error)})") from None


def _read(file: h5py.File, name: str) -> np.ndarray:
    """One array, its numbers not yet checked.

    Raises:
        ValueError: It is none, or damaged; `"key: what was expected"`.
    """
    # Damage, or a link in a circle.
    with _damage_is(f"{name}: expected an array, found damaged data"):
        item = file.get(name)
        target = getattr(file.get(name, getlink=True), "path", None) if item is None else None
    if item is None:
        raise ValueError(f"{name}: expected an array, found a link to {target!r} that leads nowhere")
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{name}: expected an array, found a {type(item).__name__.lower()}")
    if item.shape is None:
        raise ValueError(f"{name}: expected an array, found one without a shape")
    if item.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected {'float32' if name in FLOAT_KEYS else 'booleans'}, got {item.dtype}")
    # A virtual array whose source is missing would read as zeros.
    if item.is_virtual:
        raise ValueError(f"{name}: expected an array in this file, found a virtual one that refers to others")
    try:
        return np.asarray(item[()])
    except MemoryError:
        raise ValueError(f"{name}: expected an array that fits into memory, got shape {item.shape}") from None
    except Exception as error:
        raise ValueError(f"{name}: expected a whole array, got truncated or damaged data ({reason(error)})") from None


def _text_attribute(file: h5py.File, name: str) -> str | None:
    with _damage_is(f"attribute {name}: expected text, got damaged data"):
        value = file.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is not None and not isinstance(value, str):
        raise ValueError(f"attribute {name}: expected text, got {value!r:.60}")
    return value


def _with_successors(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Derives `next_observations` from the order of transitions, and drops those whose successor is not known.

    Raises:
        ValueError: None is known.
    """
    observations, terminals = arrays["observations"], arrays["terminals"]
    timeouts = arrays["timeouts"].copy()
    unknown = timeouts & ~terminals
    unknown[-1] = not terminals[-1]
    # Where a dropped transition was, its trajectory now ends one earlier.
    over = terminals | timeouts
    timeouts[:-1] |= unknown[1:] & ~over[:-1]
    successors = np.concatenate([observations[1:], observations[-1:]])
    successors[terminals] = observations[terminals]
    if unknown.all():
        raise ValueError(
            "next_observations: missing, expected where no trajectory has two transitions or a terminal state"
        )
    return {
        name: array[~unknown]
        for name, array in (arrays | {"next_observations": successors, "timeouts": timeouts}).items()
    }


def _env_from_name(path: Path) -> str | None:
    domain = d4rl_domain(path.name)
    return domain.env if domain else None


def _where_published(path: Path) -> str:
    if not path.suffix and not path.is_absolute() and len(path.parts) > 1 and re.fullmatch(r".+-v\d+", path.name):
        return f"; hades offline collect --minari {path} writes one of the Minari dataset of that id"
    return f"; D4RL publishes it below {_PUBLISHED_AT}" if d4rl_domain(path.name) else ""


def _to_json(attributes: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(attributes), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"attributes: expected values that JSON can hold ({error})") from None
    if len(text) > _MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"attributes: expected at most {_MAX_ATTRIBUTE_BYTES} characters of JSON, got {len(text)}")
    return text
