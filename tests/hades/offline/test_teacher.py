"""Teachers: formulas, the file that carries them, and what it refuses."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades._npz import read_arrays, write_arrays
from hades.offline import Teacher, TeacherError
from hades.types import Continuous, Discrete


def arrays(observation_dim=3, action_dim=2, width=4):
    """A teacher file in memory, in the layout of the published ones: weights are (outputs, inputs)."""
    generator = np.random.default_rng(0)

    def layers(name, sizes):
        found = {}
        for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            found[f"{name}_w{index}"] = generator.normal(size=(outputs, inputs)).astype(np.float32)
            found[f"{name}_b{index}"] = generator.normal(size=outputs).astype(np.float32)
        return found

    both = observation_dim + action_dim
    return {
        **layers("actor", (observation_dim, width, width, 2 * action_dim)),
        **layers("critic1", (both, width, 1)),
        **layers("critic2", (both, width, 1)),
        "log_std_multiplier": np.float32(1.5),
        "log_std_offset": np.float32(-1.0),
        "obs_mean": generator.normal(size=observation_dim).astype(np.float32),
        "obs_std": generator.uniform(0.5, 2, observation_dim).astype(np.float32),
    }


def perceptron(held, name, inputs):
    index = 0
    while f"{name}_w{index}" in held:
        inputs = held[f"{name}_w{index}"] @ (np.maximum(inputs, 0) if index else inputs) + held[f"{name}_b{index}"]
        index += 1
    return inputs


@pytest.fixture
def path(tmp_path):
    write_arrays(tmp_path / "teacher.npz", {name: np.asarray(array) for name, array in arrays().items()})
    return tmp_path / "teacher.npz"


def test_policy_and_action_values_are_those_of_the_layout(path):
    held, teacher = arrays(), Teacher.load(path)
    observation, action = np.array([0.3, -1.2, 2.0], np.float32), np.array([0.4, -0.9], np.float32)
    seen = (observation - held["obs_mean"]) / held["obs_std"]
    mean, raw = np.split(perceptron(held, "actor", seen), 2)
    distribution = teacher.policy(observation)
    np.testing.assert_allclose(distribution.mode(), np.tanh(mean), rtol=1e-5)
    np.testing.assert_allclose(distribution.log_std, np.clip(1.5 * raw - 1.0, -20, 2), rtol=1e-5)
    both = np.concatenate([seen, action])
    expected = min(perceptron(held, name, both)[0] for name in ("critic1", "critic2"))
    np.testing.assert_allclose(teacher.q(observation, action), expected, rtol=1e-5)


def test_a_saved_teacher_is_the_same_one_and_keeps_its_bounds(path, tmp_path):
    wide = Teacher.load(path).replace(action_low=jnp.array([-2.0, 0.0]), action_high=jnp.array([2.0, 5.0]))
    wide.save(tmp_path / "again.npz")
    again = Teacher.load(tmp_path / "again.npz")
    for mine, theirs in zip(*map(jax.tree.leaves, (wide, again)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.action_space == Continuous((-2.0, 0.0), (2.0, 5.0))
    np.testing.assert_allclose(again.policy(jnp.full(3, 1e6)).mode(), again.policy(jnp.full(3, 1e6)).mode())
    assert set(read_arrays(tmp_path / "again.npz")) == set(arrays()) | {"action_low", "action_high"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor_w0": None}, "actor_w0: missing"),
        ({"critic2_b1": None}, "critic2_b1: missing"),
        ({"obs_std": None}, "obs_std: missing"),
        ({"obs_std": np.zeros(3, np.float32)}, "obs_std: expected numbers above 0, got 0.0"),
        ({"obs_mean": np.zeros((3, 1), np.float32)}, r"obs_mean: expected shape \(any\), got \(3, 1\)"),
        ({"actor_w1": np.zeros((4, 5), np.float32)}, r"actor_w1: expected shape \(any, 4\), got \(4, 5\)"),
        ({"actor_b2": np.zeros(3, np.float32)}, r"actor_b2: expected shape \(4\), got \(3,\)"),
        ({"critic1_w1": np.full((1, 4), np.nan, np.float32)}, "critic1_w1: expected finite numbers"),
        ({"critic1_w0": np.zeros((4, 5), bool)}, "critic1_w0: expected float32, got bool"),
        ({"action_low": np.ones(2, np.float32)}, "action_low: expected numbers below action_high"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_malformed_file_is_refused_in_one_sentence(tmp_path, changes, message):
    held = {**arrays(), **changes}
    path = tmp_path / "broken.npz"
    write_arrays(path, {name: np.asarray(array) for name, array in held.items() if array is not None})
    before = path.read_bytes()
    with pytest.raises(TeacherError, match=f"broken.npz: {message}") as caught:
        Teacher.load(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_teacher_of_another_environment_is_refused(path):
    teacher = Teacher.load(path)

    def spaces(dim, space):
        return SimpleNamespace(name="test/other", observation_shape=(dim,), action_space=space)

    teacher.check_fits(spaces(3, Continuous((-1.0, -1.0), (1.0, 1.0))))
    with pytest.raises(TeacherError, match=r"expected observations of shape \(4,\) as of test/other, got .* \(3,\)"):
        teacher.check_fits(spaces(4, Continuous((-1.0, -1.0), (1.0, 1.0))))
    with pytest.raises(TeacherError, match="expected actions of test/other"):
        teacher.check_fits(spaces(3, Continuous((-2.0, -2.0), (2.0, 2.0))))
    with pytest.raises(TeacherError, match="expected continuous actions"):
        teacher.check_fits(spaces(3, Discrete(2)))


def test_nothing_is_written_of_a_teacher_that_is_not_finite(path, tmp_path):
    broken = Teacher.load(path).replace(observation_std=jnp.full(3, jnp.nan))
    with pytest.raises(TeacherError, match="obs_std: expected finite numbers"):
        broken.save(tmp_path / "new.npz")
    assert not (tmp_path / "new.npz").exists()
