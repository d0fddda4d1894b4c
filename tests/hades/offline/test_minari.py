"""Minari datasets, made in a folder of the test: no network."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hades.offline import minari
from hades.offline.transitions import OfflineDataError


def make_episode(length: int, terminated: bool, seed: int = 0, **changes: Any) -> SimpleNamespace:
    generator = np.random.default_rng(seed)
    last = np.arange(length) == length - 1
    fields = {
        "observations": generator.normal(size=(length + 1, 3)),
        "actions": generator.uniform(-1, 1, (length, 2)).astype(np.float32),
        "rewards": np.ones(length),
        "terminations": last & terminated,
        "truncations": last & (not terminated),
    }
    return SimpleNamespace(**(fields | changes))


def test_dataset_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    from minari.data_collector.episode_buffer import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = [make_episode(3, True, 0), make_episode(4, False, 1)]
    buffers = [EpisodeBuffer(id=index, **vars(episode)) for index, episode in enumerate(episodes)]
    dataset = package.create_dataset_from_buffers(
        "test/pendulum-v0",
        buffers,
        env=gymnasium.spec("Pendulum-v1"),
        eval_env=gymnasium.spec("Pendulum-v1"),
        observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64),
        action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        algorithm_name="test",
        author="test",
        author_email="test",
        code_permalink="test",
        description="test",
    )
    for source in ("test/pendulum-v0", dataset):
        found = minari.load(source)
        assert found.env == "gymnasium/Pendulum-v1"
        assert minari.load(source, "brax/pendulum").env == "brax/pendulum"
        assert found.trajectory_returns().tolist() == [3, 4]
        assert np.flatnonzero(found.terminals).tolist() == [2]
        assert np.flatnonzero(found.timeouts).tolist() == [6]
        for name, part in (("observations", slice(None, -1)), ("next_observations", slice(1, None))):
            expected = np.concatenate([episode.observations[part] for episode in episodes]).astype(np.float32)
            np.testing.assert_array_equal(getattr(found, name), expected)
        np.testing.assert_array_equal(found.actions, np.concatenate([episode.actions for episode in episodes]))
    (tmp_path / "test/pendulum-v0/data/main_data.hdf5").write_bytes(b"nothing")
    with pytest.raises(OfflineDataError, match="test/pendulum-v0: expected a Minari dataset that can be read"):
        minari.load("test/pendulum-v0")


def test_parts_of_dictionaries_by_their_keys() -> None:
    episode = make_episode(3, True)
    parts = {"goal": np.ones((4, 2, 2)), "position": episode.observations}
    split = SimpleNamespace(**(vars(episode) | {"observations": parts}))
    found = minari.load([split], observation_keys=("position", "goal"))
    np.testing.assert_array_equal(found.observations[:, :3], episode.observations[:-1].astype(np.float32))
    np.testing.assert_array_equal(found.next_observations[:, 3:], np.ones((3, 4)))
    for keys, words in ((None, "expected observation_keys, some of goal, position"), (("x",), "got 'x'")):
        with pytest.raises(OfflineDataError, match=words):
            minari.load([split], observation_keys=keys)
    with pytest.raises(OfflineDataError, match="observation_keys: expected none"):
        minari.load([episode], observation_keys=("goal",))


def test_options_limit_and_scores_of_a_dataset_are_kept() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    # A copy: gymnasium hands out its own.
    spec = copy.deepcopy(gymnasium.spec("Pendulum-v1"))
    spec.kwargs, spec.max_episode_steps = {"g": 9.0, "render_mode": "rgb_array"}, 50
    metadata = {"ref_min_score": np.float64(-1500), "ref_max_score": np.float64(-150)}
    dataset = SimpleNamespace(id="test/pendulum-v0", env_spec=spec, storage=SimpleNamespace(metadata=metadata))
    assert minari.attributes(dataset, ("goal",)) == {
        "minari": "test/pendulum-v0",
        "env_options": {"g": 9.0, "max_steps": 50, "observation_keys": ["goal"]},
        "score_reference": {"random": -1500.0, "expert": -150.0},
    }
    spec.entry_point = "my_bodies.pendulum:Pendulum"
    del metadata["ref_max_score"]
    found = minari.attributes(dataset)
    assert found["env_options"]["module"] == "my_bodies" and "score_reference" not in found


def test_an_episode_without_an_end_does_not_run_on_into_the_next() -> None:
    found = minari.load([make_episode(2, True, truncations=np.zeros(2, bool)), make_episode(3, False)])
    assert np.flatnonzero(found.timeouts).tolist() == [4]
    open_end = make_episode(2, False, truncations=np.zeros(2, bool))
    assert np.flatnonzero(minari.load([open_end, open_end]).timeouts).tolist() == [1, 3]
    assert found.env is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": np.float32([1, np.nan, 1])}, "rewards: expected finite numbers"),
        ({"observations": np.zeros((3, 3))}, "observations: expected 4 rows, one more than rewards"),
        ({"observations": {"goal": np.zeros((4, 3))}}, "observations: expected an array, got a dictionary"),
        ({"actions": np.zeros((3, 1, 1), np.float32)}, "actions: expected 1 or 2 axes"),
        ({"actions": np.zeros((3, 5), np.float32)}, "actions: expected (2,) as in the first, got (5,)"),
        ({"terminations": None}, "terminations: expected an array, got NoneType"),
        (vars(make_episode(0, True)), "expected at least one step, got none"),
    ],
)
def test_malformed_episodes(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OfflineDataError) as caught:
        minari.load([make_episode(3, True), make_episode(3, True, **changes)])
    assert str(caught.value).startswith(f"episodes: episode 1: {words}")
    assert "\n" not in str(caught.value)


def test_no_episodes() -> None:
    with pytest.raises(OfflineDataError, match="at least one episode, got none"):
        minari.load([])


def test_missing_dataset_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(OfflineDataError, match="minari download mujoco/hopper/medium-v0"):
        minari.load("mujoco/hopper/medium-v0")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install 'hades-distillation\[minari\]'"):
        minari.load("mujoco/hopper/medium-v0")
