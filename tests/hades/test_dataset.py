"""The dataset pytree, and its file: round trips, what is refused, and that a failed write harms nothing."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades._serialization import from_dict
from hades.dataset import DatasetError, SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.metadata import EvaluationSummary, FileMetadata, package_versions
from tests.hades.malformed import MALFORMED_FILES, MalformedFile, valid_arrays, valid_metadata, write_file

ARRAYS = ("observations", "actions", "action_probabilities", "observation_mean", "observation_std")
KINDS = [(normalization, discrete) for normalization in ("none", "fixed", "running") for discrete in (False, True)]


def make_dataset(normalization: str = "none", discrete: bool = False) -> SyntheticDataset:
    arrays = valid_arrays(normalization, discrete)
    metadata = from_dict(FileMetadata, arrays.pop("metadata"))
    return SyntheticDataset(**{name: jnp.asarray(array) for name, array in arrays.items()}, metadata=metadata)


@pytest.mark.parametrize(("normalization", "discrete"), KINDS)
def test_round_trip(tmp_path: Path, normalization: str, discrete: bool) -> None:
    dataset = make_dataset(normalization, discrete)
    dataset.save(tmp_path / "dataset.npz")
    loaded = SyntheticDataset.load(tmp_path / "dataset.npz")
    assert loaded.metadata == dataset.metadata
    assert hash(loaded.metadata) == hash(dataset.metadata)
    assert loaded.num_pairs == 4
    for name in ARRAYS:
        expected, found = getattr(dataset, name), getattr(loaded, name)
        assert (expected is None) == (found is None)
        if expected is not None:
            assert isinstance(found, jax.Array)
            assert found.dtype == jnp.float32
            np.testing.assert_array_equal(found, expected)


def test_image_observations(tmp_path: Path) -> None:
    arrays = valid_arrays("fixed", discrete=True)
    arrays |= {"observations": np.zeros((4, 10, 10, 2)), "observation_mean": np.zeros((10, 10, 2))}
    arrays |= {"observation_std": np.ones((10, 10, 2))}
    write_file(tmp_path / "image.npz", arrays)
    assert SyntheticDataset.load(tmp_path / "image.npz").observations.shape == (4, 10, 10, 2)


def test_file_is_readable_with_numpy_alone_and_says_what_the_contract_says(tmp_path: Path) -> None:
    make_dataset("fixed").save(tmp_path / "dataset.npz")
    with np.load(tmp_path / "dataset.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    assert set(arrays) == {"metadata", "observations", "actions", "observation_mean", "observation_std"}
    assert all(array.dtype == np.dtype("<f4") for name, array in arrays.items() if name != "metadata")
    assert arrays["metadata"].shape == ()
    assert json.loads(str(arrays["metadata"])) == valid_metadata(observation_normalization="fixed")


@pytest.mark.parametrize("discrete", [False, True])
def test_equal_content_gives_equal_bytes(tmp_path: Path, discrete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset("fixed", discrete)
    dataset.save(tmp_path / "first.npz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    fortran = jax.tree.map(lambda leaf: np.asfortranarray(leaf, dtype=np.float64), dataset)
    fortran.save(tmp_path / "second.npz")
    SyntheticDataset.load(tmp_path / "first.npz").save(tmp_path / "third.npz")
    first = (tmp_path / "first.npz").read_bytes()
    assert (tmp_path / "second.npz").read_bytes() == first
    assert (tmp_path / "third.npz").read_bytes() == first


def test_bytes_do_not_depend_on_the_order_of_options(tmp_path: Path) -> None:
    dataset = make_dataset()
    for name, options in (("a", {"x": 1, "y": [1, {"z": 2}]}), ("b", {"y": [1, {"z": 2}], "x": 1})):
        metadata = from_dict(FileMetadata, valid_metadata(env_options=options))
        dataclasses.replace(dataset, metadata=metadata).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = SyntheticDataset.load(tmp_path / "a").metadata
    assert loaded is not None
    assert loaded.env_options["y"] == (1, {"z": 2})
    assert isinstance(hash(loaded), int)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_become_float32(tmp_path: Path, dtype: str) -> None:
    arrays = valid_arrays()
    arrays["actions"] = arrays["actions"].astype(dtype)
    write_file(tmp_path / "dataset.npz", arrays)
    loaded = SyntheticDataset.load(tmp_path / "dataset.npz").actions
    assert loaded is not None
    assert loaded.dtype == jnp.float32
    np.testing.assert_array_equal(loaded, arrays["actions"].astype(np.float32))


def test_bfloat16_is_saved_as_float32(tmp_path: Path) -> None:
    dataset = make_dataset()
    dataclasses.replace(dataset, actions=jnp.ones((4, 3), jnp.bfloat16)).save(tmp_path / "dataset.npz")
    np.testing.assert_array_equal(SyntheticDataset.load(tmp_path / "dataset.npz").actions, np.ones((4, 3)))


def test_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    arrays = valid_arrays() | {"notes": np.arange(3)}
    arrays["metadata"] |= {"written_by": "a newer version"}
    write_file(tmp_path / "dataset.npz", arrays)
    assert SyntheticDataset.load(tmp_path / "dataset.npz").num_pairs == 4


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_loss_follows_from_the_kind_of_actions(tmp_path: Path, discrete: bool, absent: bool) -> None:
    arrays = valid_arrays(discrete=discrete)
    if absent:
        del arrays["metadata"]["cloning"]["loss"]
    else:
        arrays["metadata"]["cloning"]["loss"] = None
    write_file(tmp_path / "dataset.npz", arrays)
    loaded = SyntheticDataset.load(tmp_path / "dataset.npz").metadata
    assert loaded is not None
    assert loaded.cloning.loss == ("cross_entropy" if discrete else "gaussian_nll")


def test_absent_cloning_settings_and_batch_size(tmp_path: Path) -> None:
    arrays = valid_arrays()
    arrays["metadata"]["cloning"] = {"loss": "mse", "batch_size": 2}
    arrays["metadata"]["evaluation"] = None
    write_file(tmp_path / "dataset.npz", arrays)
    loaded = SyntheticDataset.load(tmp_path / "dataset.npz")
    assert loaded.metadata is not None
    assert loaded.metadata.cloning == CloningSettings(loss="mse", batch_size=2)
    loaded.save(tmp_path / "again.npz")
    assert SyntheticDataset.load(tmp_path / "again.npz").metadata == loaded.metadata


def test_a_dataset_made_by_hand_is_of_format_2(tmp_path: Path) -> None:
    dataset = make_dataset()
    assert dataset.metadata is not None
    by_hand = dataclasses.replace(dataset, metadata=dataclasses.replace(dataset.metadata, cloning=None))
    by_hand.save(tmp_path / "by_hand.npz")
    with np.load(tmp_path / "by_hand.npz") as archive:
        assert json.loads(str(archive["metadata"])) == valid_metadata(cloning=None, format=2)
    loaded = SyntheticDataset.load(tmp_path / "by_hand.npz").metadata
    assert loaded is not None
    assert loaded.cloning is None
    with pytest.raises(ValueError, match="^by_hand.npz: expected cloning settings, got none"):
        loaded.require_cloning("by_hand.npz")
    assert dataset.metadata.require_cloning() is dataset.metadata.cloning


def test_format_2_is_written_only_where_it_is_needed(tmp_path: Path) -> None:
    arrays = valid_arrays()
    arrays["metadata"]["format"] = 2
    write_file(tmp_path / "two.npz", arrays)
    SyntheticDataset.load(tmp_path / "two.npz").save(tmp_path / "again.npz")
    make_dataset().save(tmp_path / "one.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


def test_learned_steps_are_of_format_2_and_come_back(tmp_path: Path) -> None:
    dataset = make_dataset()
    assert dataset.metadata is not None and dataset.metadata.cloning is not None
    cloning = dataclasses.replace(dataset.metadata.cloning, step_sizes="learned", num_steps=3)
    learned = dataclasses.replace(
        dataset,
        step_sizes=jnp.array([0.5, 1.0, 2.0]),
        log_std=jnp.full(3, -1.0),
        metadata=dataclasses.replace(dataset.metadata, cloning=cloning),
    )
    learned.save(tmp_path / "learned.npz")
    loaded = SyntheticDataset.load(tmp_path / "learned.npz")
    assert loaded.metadata is not None
    assert (loaded.metadata.format, loaded.metadata.cloning) == (2, cloning)
    np.testing.assert_array_equal(loaded.step_sizes, learned.step_sizes)
    np.testing.assert_array_equal(loaded.log_std, learned.log_std)
    bare = loaded.without_statistics()
    assert bare.metadata is None and bare.step_sizes is loaded.step_sizes
    assert cloning.with_fixed_steps == CloningSettings(
        hidden_sizes=cloning.hidden_sizes, activation=cloning.activation, loss=cloning.loss
    )
    assert dataset.metadata.cloning.with_fixed_steps is dataset.metadata.cloning


def test_case_names_are_unique() -> None:
    assert len({case.name for case in MALFORMED_FILES}) == len(MALFORMED_FILES) >= 25


@pytest.mark.parametrize("case", MALFORMED_FILES, ids=lambda case: case.name)
def test_malformed_file_is_refused_in_one_sentence(tmp_path: Path, case: MalformedFile) -> None:
    path = tmp_path / "bad.npz"
    case.write(path)
    with pytest.raises(DatasetError) as caught:
        SyntheticDataset.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for word in case.expected_words:
        assert word in message.removeprefix(str(path))
    assert "\n" not in message
    assert ". " not in message
    assert not message.endswith(".") or message.endswith("...")
    assert len(message) < len(str(path)) + 400


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    write_file(path, valid_arrays("fixed"))
    good = path.read_bytes()
    for length in range(0, len(good), 97):
        path.write_bytes(good[:length])
        with pytest.raises(DatasetError, match=r"bad\.npz"):
            SyntheticDataset.load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="pipe"):
        SyntheticDataset.load(tmp_path / "pipe")


def test_saving_refuses_what_loading_would(tmp_path: Path) -> None:
    dataset = make_dataset()
    bad = {
        "metadata: expected a FileMetadata": dataset.without_metadata(),
        "actions: expected finite": dataclasses.replace(dataset, actions=jnp.full((4, 3), jnp.nan)),
        "actions: expected 2 axes": jax.tree.map(lambda leaf: leaf[None], dataset),
        "exactly one": dataclasses.replace(dataset, actions=None),
        "observation_mean: expected only": dataclasses.replace(dataset, observation_mean=jnp.zeros(11)),
    }
    for words, candidate in bad.items():
        with pytest.raises(DatasetError, match=words) as caught:
            candidate.save(tmp_path / "dataset.npz")
        assert str(caught.value).startswith(str(tmp_path / "dataset.npz"))
    metadata = from_dict(FileMetadata, valid_metadata(env_options={"callback": print}))
    with pytest.raises(DatasetError, match="JSON"):
        dataclasses.replace(dataset, metadata=metadata).save(tmp_path / "dataset.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, failure: BaseException
) -> None:
    path = tmp_path / "dataset.npz"
    make_dataset().save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(place, fail)
    with pytest.raises(type(failure)) as caught:
        make_dataset("fixed").save(path)
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_raise_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent/dataset.npz"):
        make_dataset().save(tmp_path / "absent" / "dataset.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        make_dataset().save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_saved_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    make_dataset().save(tmp_path / "dataset.npz")
    assert (tmp_path / "dataset.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_pytree_under_vmap_grad_and_jit() -> None:
    dataset = make_dataset("fixed").without_metadata()

    def loss(dataset: SyntheticDataset) -> jax.Array:
        assert dataset.actions is not None
        return jnp.sum(dataset.observations**2) + jnp.sum(dataset.actions)

    gradient = jax.jit(jax.grad(loss))(dataset)
    np.testing.assert_allclose(gradient.observations, 2 * dataset.observations)
    np.testing.assert_array_equal(gradient.actions, jnp.ones((4, 3)))
    population = jax.vmap(lambda scale: jax.tree.map(lambda leaf: scale * leaf, dataset))(jnp.arange(5.0))
    assert population.observations.shape == (5, 4, 11)
    assert population.num_pairs == 4
    axes = jax.tree.map(lambda leaf: 0, dataset)
    losses = jax.vmap(loss, in_axes=(axes,))(population)
    np.testing.assert_allclose(losses[1], loss(dataset), rtol=1e-5)


def test_metadata_survives_transformations() -> None:
    dataset = make_dataset()
    assert jax.jit(lambda dataset: dataset)(dataset).metadata == dataset.metadata
    assert jax.tree.map(jnp.zeros_like, dataset).metadata == dataset.metadata


def test_one_compiled_function_serves_files_without_metadata() -> None:
    first = make_dataset()
    second = dataclasses.replace(first, metadata=from_dict(FileMetadata, valid_metadata(seed=1)))
    traces = []

    @jax.jit
    def total(dataset: SyntheticDataset) -> jax.Array:
        traces.append(dataset)
        return jnp.sum(dataset.observations)

    total(first.without_metadata())
    total(second.without_metadata())
    assert len(traces) == 1
    total(first)
    total(second)
    assert len(traces) == 3


def test_num_pairs_without_actions() -> None:
    with pytest.raises(ValueError, match="got neither"):
        _ = SyntheticDataset(jnp.zeros((2, 3))).num_pairs


def test_package_versions() -> None:
    assert set(package_versions("brax/hopper")) == {"hades", "jax", "brax"}
    assert set(package_versions("diagnostic/target")) == {"hades", "jax"}
    # Playground itself is an extra; its physics come with Brax.
    assert set(package_versions("playground/FingerSpin")) - {"playground"} == {"hades", "jax", "mujoco-mjx"}


@pytest.mark.parametrize("bad", [{"mean": float("nan")}, {"ci95": (2.0, 1.0)}, {"num_episodes": 0}])
def test_evaluation_summary_refuses(bad: dict[str, object]) -> None:
    good: dict[str, object] = {"mean": 1.0, "ci95": (0.0, 2.0), "num_inits": 1, "num_episodes": 1}
    with pytest.raises(ValueError, match=next(iter(bad))):
        EvaluationSummary(**good | bad)  # type: ignore[arg-type]


def reference_folder() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "reference"
    return Path(os.environ.get("HADES_REFERENCE", default)) / "hades"


def test_reference_files_load_with_the_shapes_of_the_manifest(tmp_path: Path) -> None:
    folder = reference_folder()
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"no reference data at {folder} (set HADES_REFERENCE)")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest
    for name, entry in manifest.items():
        dataset = SyntheticDataset.load(folder / name)
        assert dataset.metadata is not None
        assert dataset.metadata.env == entry["env"]
        shapes = {key: list(getattr(dataset, key).shape) for key in ARRAYS if getattr(dataset, key) is not None}
        assert shapes == entry["shapes"]
        dataset.save(tmp_path / name)
        with np.load(folder / name) as original, np.load(tmp_path / name) as written:
            assert json.loads(str(original["metadata"])) == json.loads(str(written["metadata"]))
            for key in shapes:
                np.testing.assert_array_equal(written[key], original[key])
