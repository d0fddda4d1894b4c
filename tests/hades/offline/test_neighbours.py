"""Files as users of D4RL, Minari, d3rlpy and others have them: each is read, or refused by one true sentence."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from hades.offline import d4rl
from hades.offline.transitions import OfflineDataError
from tests.hades.offline.malformed_hdf5 import valid_arrays, write_file

REFERENCE = Path(os.environ.get("HADES_REFERENCE", "../shared/reference")) / "offline"

Write = Callable[[Path], None]


def plain(**changes: Any) -> Write:
    """The arrays of a good file, some of them replaced, or left out where they are None."""

    def write(path: Path) -> None:
        arrays = {name: array for name, array in (valid_arrays() | changes).items() if array is not None}
        write_file(path, arrays)

    return write


def without(*names: str, **changes: Any) -> Write:
    return plain(**dict.fromkeys(names), **changes)


def grouped(groups: dict[str, Any], write: Write) -> Write:
    """A file with more beside its arrays."""

    def both(path: Path) -> None:
        write(path)
        with h5py.File(path, "a") as file:
            for name, value in groups.items():
                file[name] = value

    return both


def nested(prefix: str, **names: str) -> Write:
    """The arrays of a good file within a group, under other names."""

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, array in valid_arrays().items():
                file[f"{prefix}/{names.get(name, name)}"] = array

    return write


def renamed(**names: str) -> Write:
    def write(path: Path) -> None:
        write_file(path, {names.get(name, name): array for name, array in valid_arrays().items()})

    return write


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **ARRAYS)


ARRAYS = valid_arrays()
ENDS = ARRAYS["terminals"] | ARRAYS["timeouts"] | (np.arange(9) == 8)
INFOS = {"infos/qpos": np.zeros((9, 6)), "infos/qvel": np.zeros((9, 6)), "infos/action_log_probs": np.zeros(9)}
MODEL = {"metadata/policy/fc0/weight": np.zeros((4, 4)), "metadata/algorithm": "SAC", "metadata/iteration": 7}
IMAGES = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 3)).astype(np.uint8)

READ: dict[str, Write] = {
    "d4rl gym-mujoco v2": grouped(INFOS | MODEL, plain()),
    "d4rl gym-mujoco v0, no next observations": grouped(INFOS, without("next_observations")),
    "d4rl adroit human": grouped({"infos/env_state_dict/qpos": np.zeros((9, 30))}, without("next_observations")),
    "d4rl antmaze, sparse rewards": grouped({"infos/goal": np.zeros((9, 2))}, plain(rewards=np.zeros(9, np.float32))),
    "d4rl antmaze, integer rewards": plain(rewards=(np.arange(9) == 2).astype(np.int64)),
    "d4rl kitchen, no timeouts": without("timeouts"),
    "d4rl kitchen, no timeouts and no next observations": without("timeouts", "next_observations"),
    "d4rl maze2d, never terminal": without("next_observations", terminals=np.zeros(9, bool)),
    "d4rl flow, float64": plain(**{name: ARRAYS[name].astype(np.float64) for name in ("observations", "actions")}),
    "d4rl carla, flattened images": without("next_observations", observations=IMAGES.reshape(9, -1)),
    "d4rl bullet": grouped({"infos/qpos": np.zeros((9, 6))}, plain()),
    "minigrid-like images of integers": without("next_observations", observations=IMAGES),
    "columns of rewards and flags": plain(**{name: ARRAYS[name][:, None] for name in ("rewards", "terminals")}),
    "flags as integers": plain(terminals=ARRAYS["terminals"].astype(np.int8)),
    "flags as floats": plain(terminals=ARRAYS["terminals"].astype(np.float32)),
    "float16": plain(observations=ARRAYS["observations"].astype(np.float16), next_observations=None),
    "big-endian": plain(actions=ARRAYS["actions"].astype(">f4")),
    "d3rlpy 1, episode_terminals": grouped(
        {"episode_terminals": ENDS.astype(np.float32), "discrete_action": False, "version": "1.0"},
        without("timeouts", "next_observations"),
    ),
    "discrete actions": plain(actions=np.arange(9) % 4),
    "discrete actions as floats": plain(actions=(np.arange(9) % 4).astype(np.float32)),
    "boolean images of a game": without(
        "next_observations", observations=IMAGES > 100, actions=np.arange(9, dtype=np.int64)[:, None] % 4
    ),
    "more keys of one's own": grouped({"returns_to_go": np.zeros(9), "language/goal": "open"}, plain()),
}

REFUSED: dict[str, tuple[Write, str]] = {
    "minari's main_data.hdf5": (nested("episode_0"), "found Minari's; hades offline collect --minari ID"),
    "robomimic": (nested("data/demo_0", observations="obs"), "observations: missing, .* got data"),
    "d3rlpy 2": (
        renamed(**{name: f"{name}_0" for name in ARRAYS}),
        "observations: missing, .* got actions_0, next_observations_0",
    ),
    "rl unplugged names": (renamed(observations="observation"), "observations: missing, .* got actions"),
    "terminals called dones": (renamed(terminals="dones"), "terminals: missing, .* got actions, dones"),
    "one component of continuous actions without an axis": (
        plain(actions=ARRAYS["actions"][:, 0]),
        "actions: expected numbers of discrete actions, as there is one axis",
    ),
    "dictionary of observations": (
        grouped({"observations/proprio": np.zeros((9, 3))}, without("observations", "next_observations")),
        "observations: expected an array, found a group",
    ),
    "several discrete actions": (
        plain(actions=np.zeros((9, 2), np.int64)),
        "actions: expected one discrete action or continuous ones, got 2 columns of int64",
    ),
    "padded with NaN": (plain(actions=np.full((9, 2), np.nan)), "actions: expected finite numbers"),
    "episodes stacked": (
        plain(**{name: array[None] for name, array in ARRAYS.items()}),
        r"actions: expected 1 or 2 axes, got shape \(1, 9, 2\)",
    ),
    "strings of rewards": (plain(rewards=np.array([b"1"] * 9)), "rewards: expected float32, got"),
    "npz under another name": (npz, "found another format"),
    "no transitions": (plain(**{name: array[:0] for name, array in ARRAYS.items()}), "at least one transition"),
}


def test_there_are_thirty() -> None:
    assert len(READ) + len(REFUSED) >= 30


@pytest.mark.parametrize("name", READ)
def test_is_read(tmp_path: Path, name: str) -> None:
    READ[name](tmp_path / "data.hdf5")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = d4rl.load(tmp_path / "data.hdf5")
    # Whoever has no timeouts hears where trajectories are taken to end.
    assert bool(said) == ("no timeouts" in name)
    with h5py.File(tmp_path / "data.hdf5") as file:
        given = {key: np.asarray(file[key]) for key in ("observations", "actions", "rewards")}
        alone = "next_observations" not in file
    # Without next observations, the last transitions of trajectories that no terminal ends are not known.
    if alone:
        terminal = [] if "never terminal" in name else [2]
        ends = terminal + ([] if "no timeouts" in name else [6]) + [8]
        kept = np.array([index for index in range(9) if index not in ends or index in terminal])
        lengths = np.diff([0, *(np.array(ends) + 1)]) - ~np.isin(ends, terminal)
    else:
        kept, lengths = np.arange(9), np.array([3, 4, 2])
    assert np.asarray(found.trajectories().lengths).tolist() == lengths.tolist()
    assert found.discrete == ("discrete" in name or "game" in name)
    for key, array in given.items():
        expected = (array.ravel() if key == "rewards" or (found.discrete and key == "actions") else array)[kept]
        dtype = jnp.int32 if key == "actions" and found.discrete else jnp.float32
        assert getattr(found, key).dtype == dtype
        np.testing.assert_allclose(getattr(found, key), expected.astype(np.float32), rtol=1e-6)
    following = given["observations"][np.minimum(kept + 1, 8)].astype(np.float32)
    within = ~np.asarray(found.terminals | found.timeouts) & (np.arange(len(kept)) < len(kept) - 1)
    np.testing.assert_array_equal(found.next_observations[within], following[within])


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    write, words = REFUSED[name]
    write(tmp_path / "data.hdf5")
    with pytest.raises(OfflineDataError, match=words) as caught:
        d4rl.load(tmp_path / "data.hdf5")
    assert str(caught.value).startswith(f"{tmp_path / 'data.hdf5'}: ") and "\n" not in str(caught.value)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no ../shared/reference (or HADES_REFERENCE)")
@pytest.mark.parametrize(
    ("name", "trajectories", "mean_return"),
    [
        ("door-human", 25, 794),
        ("hopper-expert-2x1000", 2, 3717),
        ("halfcheetah-expert-2x1000", 2, 4035),
        ("walker2d-expert-2x1000", 2, 5383),
        ("ant-expert-2x1000", 2, 4682),
    ],
)
def test_real_data(name: str, trajectories: int, mean_return: float) -> None:
    returns = np.asarray(d4rl.load(REFERENCE / f"{name}.hdf5").trajectory_returns())
    assert len(returns) == trajectories
    # The reward of each last transition is lost with its successor.
    assert returns.mean() == pytest.approx(mean_return, rel=0.02)
