"""Checkpoints: every leaf survives bit for bit, and half of one is never taken for one."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

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


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"mean": jnp.zeros((4, 2)), "flag": jnp.array(True)}, r"numbers.mean of shape \(3, 2\), expected \(4, 2\)"),
        ({"other": jnp.ones(1)}, "got one without numbers.other"),
        ({"flag": jnp.array(True)}, "got one with numbers.mean, which the run does not have"),
    ],
)
def test_a_state_of_another_kind_is_refused(tmp_path, numbers, words):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3), {})
        checkpoints.save(5, make_state(5), {})
        with pytest.raises(ValueError, match=f"5: expected a checkpoint of this run, .*{words}"):
            checkpoints.restore(make_state(0).replace(numbers=numbers))
        # It is whole, and stays where it is.
        assert checkpoints.latest == 5


def test_an_abstract_template_is_enough(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3), {})
        _, state, _ = checkpoints.restore(jax.eval_shape(lambda: make_state(3)))
    assert_same(state, make_state(3))
    assert not any(leaf.committed for leaf in jax.tree.leaves(state))


def test_keys_of_any_shape_and_kind_come_back(tmp_path):
    state = {"one": jax.random.key(3, impl="rbg"), "many": jax.random.split(jax.random.key(1), 3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        _, restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
    assert_same(restored, state)


def test_shardings_of_the_template_place_the_arrays(tmp_path):
    mesh = jax.make_mesh((1,), ("population",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("population"))
    state = {"mean": jnp.arange(4.0), "keys": jax.random.split(jax.random.key(1), 3)}
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        for template in (abstract, jax.device_put(state, sharding)):
            _, restored, _ = checkpoints.restore(template)
            assert all(leaf.sharding.is_equivalent_to(sharding, 1) for leaf in restored.values())
            assert_same(restored, state)


_FOUR_DEVICES = """
import sys
import jax, numpy as np
from hades._checkpointing import Checkpoints
mesh = jax.make_mesh((4,), ("population",))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("population"))
key, mean = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((4,), "float32", sharding=sharding)
shapes = {"key": key, "mean": mean}
with Checkpoints(sys.argv[1]) as checkpoints:
    _, state, _ = checkpoints.restore(shapes)
    assert state["mean"].sharding == sharding and len(state["mean"].devices()) == 4
    np.testing.assert_array_equal(state["mean"], np.arange(4.0))
    checkpoints.save(2, {"key": state["key"], "mean": state["mean"] + 1}, {})
"""


def test_checkpoints_go_from_one_device_to_four_and_back(tmp_path):
    state = {"key": jax.random.key(3), "mean": jnp.arange(4.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _FOUR_DEVICES, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Checkpoints(tmp_path) as checkpoints:
        step, restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
    assert step == 2
    assert_same(restored, {"key": state["key"], "mean": state["mean"] + 1})


def damage(folder, kind):
    """Cuts short the arrays, the description of them, or the progress of one checkpoint."""
    names = {"arrays": "state/**/d/*", "metadata": "state/_METADATA", "progress": "progress/metadata"}
    files = [path for path in folder.glob(names[kind]) if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:7])


@pytest.mark.parametrize("kind", ["arrays", "metadata", "progress"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, kind, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (3, 5):
            checkpoints.save(step, make_state(step), {"best": step})
    for _ in range(2):
        damage(tmp_path / "5", kind)
        with Checkpoints(tmp_path) as checkpoints:
            words = r"/5: expected a whole checkpoint, found a damaged one; going on from 3"
            with pytest.warns(UserWarning, match=words):
                step, state, progress = checkpoints.restore(make_state(0))
            assert (step, progress) == (3, {"best": 3})
            assert_same(state, make_state(3))
            # The run comes to the damaged step again, and saves it.
            checkpoints.save(5, make_state(5), {"best": 5})
    assert (tmp_path / "5.damaged").is_dir() and (tmp_path / "5.damaged.2").is_dir()
    assert "Traceback" not in capfd.readouterr().err
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(make_state(0))[0] == 5


def test_only_damaged_checkpoints_are_named_in_one_sentence(tmp_path, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, make_state(5), {})
    damage(tmp_path / "5", "arrays")
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="/5: expected a whole checkpoint") as caught,
    ):
        checkpoints.restore(make_state(0))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "5").is_dir()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_one_sentence(tmp_path, capfd):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        with Checkpoints(tmp_path / "run") as checkpoints:
            state = {"mean": jax.random.normal(jax.random.key(0), (100, 100))}
            with pytest.raises(OSError, match="No space left on device") as caught:
                checkpoints.save(3, state, {})
            assert caught.value.filename == str(tmp_path / "run" / "3")
            assert checkpoints.latest is None
        printed = capfd.readouterr()
        assert printed.err == printed.out == ""
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("failure", [ValueError("Failed to write [os_error_code='28']"), OSError(28, "No space")])
def test_failures_of_the_file_system_name_the_checkpoint(tmp_path, monkeypatch, failure):
    def fail(*arguments, **named):
        raise failure

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(OSError, match="No space") as caught:
            checkpoints.save(3, make_state(3), {})
    assert (caught.value.errno, caught.value.filename) == (28, f"{tmp_path}/3")


def test_numbers_that_are_not_finite_are_null_in_the_progress(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {"best": float("-inf")})
        assert checkpoints.restore(make_state(0))[2] == {"best": None}
    assert "nfinity" not in (tmp_path / "1" / "progress" / "metadata").read_text()


@struct.dataclass
class Renamed:
    """`State` with other names, and its numbers one level up."""

    key: jax.Array
    iteration: jax.Array
    outer: dict[str, jax.Array]


def test_renamed_fields_are_found_under_their_former_names(tmp_path):
    old = make_state(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, old, {})
        template = jax.eval_shape(lambda: Renamed(old.key, old.generation, {"mean": old.numbers["mean"]}))
        rules = {"iteration": "generation", "outer": "numbers"}
        with pytest.raises(ValueError, match="got one with numbers.flag, which the run does not have"):
            checkpoints.restore(template, formerly=rules)
        _, state, _ = checkpoints.restore(template, formerly=rules, dropped=("numbers.flag",))
    assert_same(state, Renamed(old.key, old.generation, {"mean": old.numbers["mean"]}))


def test_a_former_prefix_may_be_the_whole_state(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, {"key": jax.random.key(1), "update": jnp.int32(3), "mean": jnp.ones(2)}, {})
        template = Renamed(jax.random.key(0), jnp.int32(0), {"mean": jnp.zeros(2)})
        _, state, _ = checkpoints.restore(template, formerly={"iteration": "update", "outer": ""})
    assert_same(state, Renamed(jax.random.key(1), jnp.int32(3), {"mean": jnp.ones(2)}))


def test_nothing_to_restore_is_said(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="expected a checkpoint, found none"):
        checkpoints.restore(make_state(0))


def test_arrays_without_elements_come_back_as_they_are(tmp_path):
    state = {"contacts": jnp.zeros((0, 3)), "x": jnp.arange(2.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        _, restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
    assert restored["contacts"].shape == (0, 3)
    np.testing.assert_array_equal(restored["x"], [0, 1])


BEFORE = Path(__file__).parents[1] / "data" / "before"
"""Checkpoints of version 0.1.0: a run of HaDES-R, one of PPO, and one of Cal-QL."""


def unpacked(name, folder):
    with zipfile.ZipFile(BEFORE / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder / name


def shapes_in(checkpoints, name):
    """Shapes of one field of the newest checkpoint, as nested dictionaries and lists."""
    tree = checkpoints._manager.item_metadata(checkpoints.latest)["state"].tree[name]
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


KEY, COUNT = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), "int32")


def test_a_search_of_the_version_before_is_read_under_present_names(tmp_path):
    with Checkpoints(unpacked("evolution_half", tmp_path) / "checkpoints") as checkpoints:
        names = {"outer": "outer", "objective": "normalizer"}
        parts = {present: shapes_in(checkpoints, former) for present, former in names.items()}
        template = {"key": KEY, "iteration": COUNT, **parts}
        rules = {"iteration": "generation", "objective": "normalizer"}
        step, state, progress = checkpoints.restore(template, formerly=rules)
    assert step == state["iteration"] == 2
    assert progress["best_generation"] == 2
    np.testing.assert_array_equal(jax.random.key_data(state["key"]), [0, 0])
    with np.load(tmp_path / "evolution_half" / "dataset.npz") as dataset:
        assert np.isin(dataset["observations"], state["outer"]["strategy"]["mean"]).all()
        np.testing.assert_array_equal(state["objective"]["mean"], dataset["observation_mean"])


def test_a_ppo_run_of_the_version_before_is_read_without_its_normaliser(tmp_path):
    with Checkpoints(unpacked("ppo_half", tmp_path) / "checkpoints") as checkpoints:
        template = {"key": KEY, "iteration": COUNT, "outer": shapes_in(checkpoints, "outer"), "objective": ()}
        rules = {"iteration": "generation"}
        step, state, _ = checkpoints.restore(template, formerly=rules, dropped=("normalizer",))
    assert step == state["iteration"] == state["outer"]["update"] == 2
    with np.load(tmp_path / "ppo_half" / "policy.npz") as policy:
        head = state["outer"]["networks"]["actor"]["head"]
        np.testing.assert_array_equal(head["kernel"], policy["params/head/kernel"])


def test_a_training_of_the_version_before_is_read_as_part_of_a_run(tmp_path):
    with Checkpoints(unpacked("teacher.checkpoints", tmp_path)) as checkpoints:
        names = ("networks", "target_critics", "optimizer")
        outer = {name: shapes_in(checkpoints, name) for name in names}
        statistics = {name: shapes_in(checkpoints, f"observation_{name}") for name in ("mean", "std")}
        template = {"key": KEY, "iteration": COUNT, "outer": outer, "objective": statistics}
        rules = {"iteration": "update", "outer": ""}
        rules |= {f"objective.{name}": f"observation_{name}" for name in statistics}
        step, state, progress = checkpoints.restore(template, formerly=rules)
    assert step == state["iteration"] == state["outer"]["optimizer"]["count"] == 4
    assert set(progress) == {"origin", "history", "seconds"}
    assert (np.asarray(state["objective"]["std"]) > 0).all()
