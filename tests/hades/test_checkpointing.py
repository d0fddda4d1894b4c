"""Checkpoints: every leaf survives bit for bit, and half of one is never taken for one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from hades._checkpointing import Checkpoints


@struct.dataclass
class State:
    """A leaf of every kind that a run has."""

    key: jax.Array
    generation: jax.Array
    numbers: dict[str, jax.Array]
    nothing: None = None


def make_state(seed: int) -> State:
    numbers = {"mean": jax.random.normal(jax.random.key(seed), (3, 2)), "flag": jnp.array(bool(seed % 2))}
    return State(jax.random.key(seed), jnp.int32(seed), numbers)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        if jax.dtypes.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


def test_the_newest_checkpoint_comes_back_bit_for_bit(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None
        for step in (3, 5, 9):
            checkpoints.save(step, make_state(step), {"best": step / 10, "none": None})
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest == 9
        step, state, progress = checkpoints.restore(make_state(0))
    assert (step, progress) == (9, {"best": 0.9, "none": None})
    assert_same(state, make_state(9))
    # Arrays that are tied to no device go wherever the run goes on.
    assert not state.numbers["mean"].committed
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()) == [5, 9]


def test_a_step_that_is_saved_is_not_saved_again(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3), {"first": True})
        checkpoints.save(3, make_state(4), {"first": False})
        _, state, progress = checkpoints.restore(make_state(0))
    assert progress == {"first": True}
    assert_same(state, make_state(3))


def test_half_a_checkpoint_is_passed_over(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3), {})
    # What orbax leaves when it is killed while it writes: the name says that it is not whole.
    half = tmp_path / "7.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "manifest.ocdbt").write_bytes(b"half")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 3
        step, state, _ = checkpoints.restore(make_state(0))
        assert step == 3
        assert_same(state, make_state(3))
        checkpoints.save(7, make_state(7), {})
        assert checkpoints.latest == 7


@pytest.mark.parametrize("change", ["shape", "structure"])
def test_a_state_of_another_kind_is_refused(tmp_path, change):
    other = make_state(0)
    numbers = other.numbers | {"mean": jnp.zeros((4, 2))} if change == "shape" else {"other": jnp.ones(1)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3), {})
        with pytest.raises(ValueError):
            checkpoints.restore(other.replace(numbers=numbers))


def test_nothing_to_restore_is_said(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="expected a checkpoint, found none"):
        checkpoints.restore(make_state(0))


def test_arrays_without_elements_come_back_as_they_are(tmp_path):
    state = {"contacts": jnp.zeros((0, 3)), "x": jnp.arange(2.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        _, restored, _ = checkpoints.restore({"contacts": jnp.ones((0, 3)), "x": jnp.zeros(2)})
    assert restored["contacts"].shape == (0, 3)
    np.testing.assert_array_equal(restored["x"], [0, 1])
