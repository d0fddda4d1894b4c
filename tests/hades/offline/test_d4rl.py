"""Files of offline data: round trips, what D4RL's reader finds in them, what is refused, and that nothing is lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades.offline import d4rl
from hades.offline.transitions import OfflineDataError, Transitions
from tests.hades.malformed import MalformedFile
from tests.hades.offline.malformed_hdf5 import KEYS, MALFORMED_HDF5, valid_arrays, write_file


def discounted_returns_to_go(data: Transitions, gamma: float) -> np.ndarray:
    rewards, ends = np.asarray(data.rewards), np.asarray(data.terminals | data.timeouts)
    found = np.zeros(len(rewards))
    for index in reversed(range(len(rewards))):
        following = 0.0 if ends[index] or index == len(rewards) - 1 else found[index + 1]
        found[index] = rewards[index] + gamma * following
    return found


def make_transitions(env: str | None = "gymnasium/Hopper-v4") -> Transitions:
    return Transitions.from_arrays(valid_arrays(), env)


def assert_equal(found: Transitions, expected: Transitions) -> None:
    assert found.env == expected.env
    for name in KEYS:
        left, right = getattr(found, name), getattr(expected, name)
        assert isinstance(left, jax.Array)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("env", [None, "gymnasium/Hopper-v4", "brax/hopper"])
def test_round_trip_bit_for_bit(tmp_path: Path, env: str | None) -> None:
    transitions = make_transitions(env)
    d4rl.save(transitions, tmp_path / "data.hdf5", {"policy": "teacher.npz", "noise": [0.1, 0.3]})
    assert_equal(d4rl.load(tmp_path / "data.hdf5"), transitions)
    assert d4rl.load_attributes(tmp_path / "data.hdf5") == {"policy": "teacher.npz", "noise": [0.1, 0.3]}
    d4rl.save(
        d4rl.load(tmp_path / "data.hdf5"), tmp_path / "again.hdf5", {"noise": [0.1, 0.3], "policy": "teacher.npz"}
    )
    assert (tmp_path / "again.hdf5").read_bytes() == (tmp_path / "data.hdf5").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.hdf5", "data.hdf5"]


def test_file_has_the_keys_and_types_of_d4rl(tmp_path: Path) -> None:
    """Reads every dataset as D4RL's `get_dataset` does: by walking the file, with h5py alone."""
    d4rl.save(make_transitions(), tmp_path / "data.hdf5", {"seed": 0})
    found = {}
    with h5py.File(tmp_path / "data.hdf5", "r") as file:
        file.visititems(lambda name, item: found.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
        assert {file[name].compression for name in KEYS} == {"gzip"}
        assert file.attrs["env"] == "gymnasium/Hopper-v4"
        assert json.loads(file.attrs["hades"]) == {"seed": 0}
    expected = valid_arrays()
    assert set(found) == set(expected) == set(KEYS)
    for name in KEYS:
        assert found[name].dtype == (np.bool_ if name in ("terminals", "timeouts") else np.float32)
        np.testing.assert_array_equal(found[name], expected[name])
        # What that reader asserts of the shapes.
        assert found[name].squeeze().shape == expected[name].shape


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_reads_files_compressed_or_not_and_passes_over_other_groups(tmp_path: Path, compression: str | None) -> None:
    extra = {"infos/qpos": np.zeros((9, 6)), "infos/action_log_probs": np.zeros(9), "metadata/algorithm": "SAC"}
    write_file(tmp_path / "data.hdf5", valid_arrays(), compression=compression)
    with h5py.File(tmp_path / "data.hdf5", "a") as file:
        for name, value in extra.items():
            file[name] = value
    assert_equal(d4rl.load(tmp_path / "data.hdf5"), make_transitions(None))
    assert d4rl.load_attributes(tmp_path / "data.hdf5") == {}


def test_other_types_of_the_same_numbers(tmp_path: Path) -> None:
    arrays = {name: array.astype(np.float64) for name, array in valid_arrays().items()}
    arrays |= {"terminals": arrays["terminals"].astype(np.uint8), "rewards": arrays["rewards"].astype(">f8")}
    write_file(tmp_path / "data.hdf5", arrays)
    assert_equal(d4rl.load(tmp_path / "data.hdf5"), make_transitions(None))


def test_columns_and_integers(tmp_path: Path) -> None:
    arrays = valid_arrays()
    changed = {name: arrays[name][:, None] for name in ("rewards", "terminals", "timeouts")}
    write_file(tmp_path / "data.hdf5", arrays | changed | {"rewards": changed["rewards"].astype(np.int64)})
    assert_equal(d4rl.load(tmp_path / "data.hdf5"), make_transitions(None))
    choices = np.arange(9, dtype=np.int64)[:, None] % 3
    write_file(tmp_path / "discrete.hdf5", arrays | {"actions": choices})
    found = d4rl.load(tmp_path / "discrete.hdf5")
    assert found.discrete and found.actions.dtype == jnp.int32
    np.testing.assert_array_equal(found.actions, choices[:, 0])


def test_soft_links_that_lead_somewhere(tmp_path: Path) -> None:
    arrays = valid_arrays()
    write_file(tmp_path / "data.hdf5", {"elsewhere" if name == "rewards" else name: arrays[name] for name in KEYS})
    with h5py.File(tmp_path / "data.hdf5", "a") as file:
        file["rewards"] = h5py.SoftLink("/elsewhere")
    assert_equal(d4rl.load(tmp_path / "data.hdf5"), make_transitions(None))


def test_without_next_observations(tmp_path: Path) -> None:
    """Transitions 6 (timeout) and 8 (end of data) have unknown successors; the terminal 2 needs none."""
    write_file(tmp_path / "data.hdf5", valid_arrays(next_observations=False))
    found, whole = d4rl.load(tmp_path / "data.hdf5"), make_transitions(None)
    kept = np.array([0, 1, 2, 3, 4, 5, 7])
    for name in ("observations", "actions", "rewards", "terminals"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[kept])
    # Both know those within trajectories.
    within = np.array([0, 1, 3, 4, 5, 6])
    np.testing.assert_array_equal(found.next_observations[within], whole.next_observations[kept[within]])
    np.testing.assert_array_equal(found.next_observations[2], whole.observations[2])
    assert np.flatnonzero(found.timeouts).tolist() == [5, 6]
    assert found.trajectories().ends.tolist() == [3, 6, 7]
    assert found.trajectory_returns().tolist() == [1 + 2 + 4, 8 + 16 + 32, 128]


def test_a_trajectory_of_one_transition_with_unknown_successor_vanishes_alone(tmp_path: Path) -> None:
    arrays = valid_arrays(next_observations=False)
    # Trajectories 0-2 (terminal), 3 (timeout), 4-6 (timeout), 7-8.
    write_file(tmp_path / "data.hdf5", arrays | {"timeouts": np.isin(np.arange(9), (3, 6))})
    found = d4rl.load(tmp_path / "data.hdf5")
    assert found.trajectory_returns().tolist() == [7, 16 + 32, 128]
    assert np.flatnonzero(found.timeouts).tolist() == [4, 5]


def test_a_terminal_that_is_a_timeout_too_is_kept(tmp_path: Path) -> None:
    arrays = valid_arrays(next_observations=False)
    arrays |= {"terminals": np.isin(np.arange(9), (2, 8)), "timeouts": np.isin(np.arange(9), (2, 6))}
    write_file(tmp_path / "data.hdf5", arrays)
    found = d4rl.load(tmp_path / "data.hdf5")
    assert found.num_transitions == 8
    assert found.trajectory_returns().tolist() == [7, 8 + 16 + 32, 128 + 256]


@pytest.mark.parametrize("next_observations", [False, True])
def test_a_trajectory_that_never_ends(tmp_path: Path, next_observations: bool) -> None:
    arrays = valid_arrays(next_observations) | {"terminals": np.zeros(9, bool), "timeouts": np.zeros(9, bool)}
    if next_observations:
        arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
    write_file(tmp_path / "data.hdf5", arrays)
    found = d4rl.load(tmp_path / "data.hdf5")
    assert found.trajectory_returns().tolist() == ([511] if next_observations else [255])


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("hopper_medium-v2.hdf5", "gymnasium/Hopper-v4"),
        ("halfcheetah-medium-expert-v2.hdf5", "gymnasium/HalfCheetah-v4"),
        ("walker2d_full_replay-v2.h5", "gymnasium/Walker2d-v4"),
        # Ant-v4 has other observations than D4RL's files.
        ("ant_medium-v2.hdf5", None),
        ("my_hopper_medium-v2.hdf5", None),
        ("hopper_mixed.hdf5", "gymnasium/Hopper-v4"),
        ("door-human-v1.hdf5", "gymnasium/AdroitHandDoor-v1"),
        ("antmaze-umaze-diverse-v2.hdf5", None),
    ],
)
def test_env_from_the_name_of_the_file(tmp_path: Path, name: str, env: str | None) -> None:
    write_file(tmp_path / name, valid_arrays())
    assert d4rl.load(tmp_path / name).env == env
    assert d4rl.load(tmp_path / name, "gymnasium/Hopper-v5").env == "gymnasium/Hopper-v5"
    d4rl.save(make_transitions("brax/hopper"), tmp_path / name)
    assert d4rl.load(tmp_path / name).env == "brax/hopper"


@pytest.mark.parametrize("name", ["hopper_medium_replay-v2.hdf5", "hopper-medium-replay-v2.hdf5", "pen-cloned-v0"])
def test_missing_file_of_d4rl_says_where_it_is_published(tmp_path: Path, name: str) -> None:
    with pytest.raises(OfflineDataError) as caught:
        d4rl.load(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert str(caught.value).endswith("D4RL publishes it below http://rail.eecs.berkeley.edu/datasets/offline_rl")


def test_an_id_of_minari_in_the_place_of_a_file_says_how_to_get_one() -> None:
    with pytest.raises(OfflineDataError, match=r"hades offline collect --minari mujoco/hopper/medium-v0"):
        d4rl.load("mujoco/hopper/medium-v0")


def two_episodes() -> dict[str, np.ndarray]:
    """Two episodes of three steps, rewards 1 and 10; no flag marks where the first one ends."""
    states = np.arange(8, dtype=np.float32)[:, None]
    return {
        "observations": states[[0, 1, 2, 4, 5, 6]],
        "actions": np.zeros((6, 1), np.float32),
        "rewards": np.repeat(np.float32([1, 10]), 3),
        "next_observations": states[[1, 2, 3, 5, 6, 7]],
        "terminals": np.zeros(6, bool),
        "timeouts": np.arange(6) == 5,
    }


def test_a_trajectory_ends_where_another_state_follows(tmp_path: Path) -> None:
    write_file(tmp_path / "data.hdf5", two_episodes())
    with pytest.warns(UserWarning, match=r"data.hdf5: next_observations: 1 transitions without a flag end a"):
        found = d4rl.load(tmp_path / "data.hdf5")
    assert found.trajectory_returns().tolist() == [3, 30]
    to_go = discounted_returns_to_go(found, 0.99)
    np.testing.assert_allclose(to_go[0], 1 + 0.99 + 0.99**2, rtol=1e-6)
    assert Transitions.from_arrays(two_episodes()).trajectories().ends.tolist() == [3, 6]


@pytest.mark.parametrize("steps", [None, 3, 4])
def test_without_timeouts(tmp_path: Path, steps: int | None) -> None:
    """Terminal is transition 2; the six behind it are cut off every so many steps, or where another state follows."""
    arrays = valid_arrays()
    del arrays["timeouts"]
    write_file(tmp_path / "data.hdf5", arrays)
    with pytest.warns(UserWarning, match="1 transitions without a flag"):
        found = d4rl.load(tmp_path / "data.hdf5", trajectory_steps=steps)
    ends = {None: [3, 7, 9], 3: [3, 6, 7, 9], 4: [3, 7, 9]}[steps]
    assert found.trajectories().ends.tolist() == ends
    del arrays["next_observations"]
    write_file(tmp_path / "bare.hdf5", arrays)
    if steps is None:
        with pytest.warns(UserWarning, match="timeouts: missing, so that trajectories end at the 1 terminals alone"):
            found = d4rl.load(tmp_path / "bare.hdf5")
    else:
        found = d4rl.load(tmp_path / "bare.hdf5", trajectory_steps=steps)
    # The last transition of each that no terminal ends has no successor.
    assert np.asarray(found.trajectories().lengths).tolist() == {None: [3, 5], 3: [3, 2, 2], 4: [3, 3, 1]}[steps]


def test_steps_count_from_where_another_state_follows(tmp_path: Path) -> None:
    """Episodes of 3, 5 and 5 steps, of which nothing marks an end."""
    states = np.arange(16, dtype=np.float32)[:, None]
    first = np.array([0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14])
    arrays = {
        "observations": states[first],
        "actions": np.zeros((13, 1), np.float32),
        "rewards": np.ones(13, np.float32),
        "next_observations": states[first + 1],
        "terminals": np.zeros(13, bool),
    }
    write_file(tmp_path / "data.hdf5", arrays)
    with pytest.warns(UserWarning, match="2 transitions without a flag"):
        found = d4rl.load(tmp_path / "data.hdf5", trajectory_steps=5)
    assert found.trajectories().ends.tolist() == [3, 8, 13]


def test_steps_of_trajectories_beside_timeouts_are_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "data.hdf5", valid_arrays())
    with pytest.raises(OfflineDataError, match="timeouts: expected none where the steps of a trajectory are given"):
        d4rl.load(tmp_path / "data.hdf5", trajectory_steps=3)


@pytest.mark.parametrize("case", MALFORMED_HDF5, ids=lambda case: case.name)
def test_malformed_files_get_one_sentence(tmp_path: Path, case: MalformedFile) -> None:
    path = tmp_path / "data.hdf5"
    case.write(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(OfflineDataError) as caught:
        d4rl.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    for words in case.expected_words:
        assert words in message.replace(str(path), "PATH"), message
    if before is not None:
        assert path.read_bytes() == before


def test_there_are_enough_malformed_files() -> None:
    assert len({case.name for case in MALFORMED_HDF5}) == len(MALFORMED_HDF5) >= 15


@pytest.mark.filterwarnings("ignore:.*end a trajectory:UserWarning")
def test_damaged_bytes_anywhere_give_one_sentence_or_data(tmp_path: Path) -> None:
    d4rl.save(make_transitions(), tmp_path / "good.hdf5")
    good = (tmp_path / "good.hdf5").read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "data.hdf5"
    messages = []
    for _ in range(200):
        damaged = bytearray(good)
        for place in generator.integers(0, len(good), 3):
            damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            assert isinstance(d4rl.load(path), Transitions)
        except OfflineDataError as error:
            messages.append(str(error))
    assert 0 < len(messages) < 200
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rewards": jnp.full(9, jnp.nan)}, ("rewards", "nan")),
        ({"rewards": jnp.zeros(8)}, ("rewards", "9 rows", "8")),
        ({"actions": jnp.zeros((9, 2), bool)}, ("actions", "float32", "bool")),
        ({"observations": jnp.zeros((0, 3))}, ("observations", "at least one transition")),
    ],
)
def test_save_refuses_what_load_would_and_keeps_what_was_there(tmp_path: Path, change, words) -> None:
    path = tmp_path / "data.hdf5"
    path.write_text("before")
    with pytest.raises(OfflineDataError) as caught:
        d4rl.save(dataclasses.replace(make_transitions(), **change), path)
    assert str(caught.value).startswith(f"{path}: ")
    for word in words:
        assert word in str(caught.value)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["data.hdf5"]


@pytest.mark.parametrize("attributes", [{"loss": float("nan")}, {"model": object()}, {"log": "x" * 70_000}])
def test_attributes_that_a_file_cannot_hold(tmp_path: Path, attributes) -> None:
    with pytest.raises(OfflineDataError, match="attributes: expected"):
        d4rl.save(make_transitions(), tmp_path / "data.hdf5", attributes)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.hdf5"
    d4rl.save(make_transitions(), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        d4rl.save(make_transitions("brax/hopper"), path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["data.hdf5"]


@pytest.mark.parametrize("text", ["not JSON", "[1, 2]"])
def test_provenance_that_is_no_object(tmp_path: Path, text: str) -> None:
    write_file(tmp_path / "data.hdf5", valid_arrays(), {"hades": text})
    with pytest.raises(OfflineDataError, match="attribute hades: expected"):
        d4rl.load_attributes(tmp_path / "data.hdf5")
    assert d4rl.load(tmp_path / "data.hdf5").num_transitions == 9
