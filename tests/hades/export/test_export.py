"""Exported policies: outputs, files, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from scipy import stats

from hades import policies
from hades._npz import to_bytes
from hades.export import SUFFIXES, TOLERANCE, ExportError, export_policy
from hades.export.player import Player
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.normalization import Normalizer, PolicyParams
from hades.policy_file import PolicyFileError, TrainedPolicy
from hades.types import ActionSpace, Continuous, Discrete


class Spaces(NamedTuple):
    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    name: str = "test/spaces"


VECTOR = Spaces((5,), Continuous((-1.0, -2.0), (1.0, 0.5)))
IMAGE = Spaces((4, 6, 3), Discrete(4))
SQUASHED = CloningSettings("residual_mlp", (7, 7, 7), "gelu", action_distribution="tanh_gaussian")
# Each architecture, activation, normalisation and distribution at least once.
CASES = {
    "mlp": (VECTOR, "none", CloningSettings(hidden_sizes=(7, 8))),
    "residual": (VECTOR, "fixed", SQUASHED),
    "running": (VECTOR, "running", CloningSettings(hidden_sizes=(6,), activation="silu")),
    "cnn": (IMAGE, "fixed", CloningSettings("cnn", (8, 6), "relu")),
    "drawn": (IMAGE, "none", CloningSettings("cnn", (8,), "tanh_or_relu")),
    "linear": (IMAGE, "none", CloningSettings(hidden_sizes=())),
    "elu": (IMAGE, "running", CloningSettings(hidden_sizes=(3,), activation="elu")),
}  # fmt: skip
PROGRAM = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "hades", "scipy"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import numpy as np
from player import Player

policy = Player("policy.npz")
observations = np.load("observations.npy")
np.savez("played.npz", action=policy(observations), **policy.parameters(observations))
policy(observations[0], np.random.default_rng(0))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"jax", "flax", "hades", "numpy", "player"}))
"""


def make(spaces: Spaces, kind: str, settings: CloningSettings) -> TrainedPolicy:
    """A policy whose parameters are all different, biases and log-std included."""
    policy = policies.from_settings(spaces, settings)
    noise = iter(jax.random.split(jax.random.key(1), 100))
    network = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(next(noise), leaf.shape) if leaf.ndim else leaf,
        policy.init(jax.random.key(0)),
    )
    statistics = (jnp.full(spaces.observation_shape, 3.0), jnp.full(spaces.observation_shape, 2.0))
    normalizer = Normalizer("fixed", *statistics) if kind == "fixed" else Normalizer(kind)
    metadata = FileMetadata(
        env="test/spaces", max_episode_steps=10, method="by hand", observation_normalization=kind,
        action_selection="mode", cloning=settings,
    )  # fmt: skip
    return TrainedPolicy(PolicyParams(network, normalizer), metadata, policies.PolicySpaces.of(spaces))


def observations_for(trained: TrainedPolicy, count: int) -> np.ndarray:
    shape = trained.require_spaces().observation_shape
    return np.random.default_rng(7).normal(1.0, 2.0, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_numpy_plays_every_architecture_as_it_is(name, tmp_path):
    trained = make(*CASES[name])
    exported = export_policy(trained, tmp_path / "policy.npz", "numpy")
    assert [file.name for file in exported.files] == ["policy.npz", "player.py"]
    assert exported.difference.scaled < TOLERANCE
    loaded = TrainedPolicy.load(tmp_path / "policy.npz")
    assert (loaded.metadata, loaded.spaces) == (trained.metadata, trained.spaces)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, kind, _) in CASES.items() if kind != "running"])
def test_onnx_plays_every_architecture_in_batches_of_any_size(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    trained = make(*CASES[name])
    exported = export_policy(trained, tmp_path / "policy.onnx", "onnx")
    assert exported.files == (tmp_path / "policy.onnx",)
    assert exported.difference.scaled < TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    assert [value.name for value in session.get_inputs()] == ["observation"]
    names = {value.name for value in session.get_outputs()}
    continuous = isinstance(trained.require_spaces().action_space, Continuous)
    assert names == ({"action", "mean", "log_std"} if continuous else {"action", "logits"})
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["metadata"])["env"] == "test/spaces"
    export_policy(trained, tmp_path / "policy.npz", "numpy")
    player = Player(tmp_path / "policy.npz")
    for count in (1, 5):
        observations = observations_for(trained, count)
        played = dict(zip(sorted(names), session.run(sorted(names), {"observation": observations}), strict=True))
        np.testing.assert_allclose(played["action"], player(observations), atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "cnn", "drawn"])
def test_parameters_for_flax_are_those_of_the_module_that_is_described(name, tmp_path):
    """The module is written here from the description, as a reader without this library writes it."""
    trained = make(*CASES[name])
    exported = export_policy(trained, tmp_path / "policy.msgpack", "flax")
    assert [file.name for file in exported.files] == ["policy.msgpack", "policy.msgpack.json"]
    described = json.loads((tmp_path / "policy.msgpack.json").read_text())
    variables = serialization.msgpack_restore((tmp_path / "policy.msgpack").read_bytes())
    module = described["module"]

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            activation = getattr(nn, module["activation"])
            if module["channels"]:
                x = activation(nn.Conv(module["channels"], (3, 3))(x))
            x = x.reshape(len(x), -1)
            for index, size in enumerate(module["hidden_sizes"]):
                hidden = activation(nn.Dense(size)(x))
                x = x + hidden if module["residual"] and index > 0 else hidden
            return nn.Dense(module["outputs"], name="head")(x)

    observations = observations_for(trained, 6)
    seen = observations
    if "observation_mean" in variables:
        seen = (observations - variables["observation_mean"]) / variables["observation_std"]
    found = Network().apply({"params": variables["params"]}, seen)
    expected = trained.architecture().apply(trained.params.network, trained.params.normalizer.apply(observations))
    ours = expected.logits if hasattr(expected, "logits") else expected.mean
    np.testing.assert_allclose(found, ours, atol=1e-5)
    assert ("log_std" in variables) == isinstance(trained.require_spaces().action_space, Continuous)


def test_player_needs_numpy_alone(tmp_path):
    trained = make(*CASES["cnn"])
    export_policy(trained, tmp_path / "policy.npz", "numpy")
    observations = observations_for(trained, 9)
    np.save(tmp_path / "observations.npy", observations)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['numpy', 'player']\n"
    distribution = trained.architecture().apply(trained.params.network, trained.params.normalizer.apply(observations))
    with np.load(tmp_path / "played.npz") as played:
        np.testing.assert_allclose(played["logits"], distribution.logits, atol=1e-5)
        np.testing.assert_array_equal(played["action"], distribution.mode())


def test_player_samples_from_the_distribution():
    generator = np.random.default_rng(3)
    squashed, categorical, clipped = (as_player(make(*CASES[name])) for name in ("residual", "linear", "mlp"))
    observation = np.ones(5, np.float32)
    parameters = squashed.parameters(observation)
    samples = squashed(np.tile(observation, (4000, 1)), generator)
    center, scale = (squashed.high + squashed.low) / 2, (squashed.high - squashed.low) / 2
    unit = np.arctanh(np.clip((samples - center) / scale, -1, 1))
    for index in range(2):
        expected = stats.norm(parameters["mean"][index], np.exp(parameters["log_std"][index]))
        assert stats.kstest(unit[:, index], expected.cdf).pvalue > 1e-3
    image = np.ones((4, 6, 3), np.float32)
    logits = categorical.parameters(image)["logits"].astype(float)
    found = np.bincount(categorical(np.tile(image, (4000, 1, 1, 1)), generator), minlength=4)
    assert stats.chisquare(found, 4000 * np.exp(logits) / np.exp(logits).sum()).pvalue > 1e-3
    actions = clipped(100 * np.ones((50, 5), np.float32), generator)
    assert (actions >= clipped.low).all() and (actions <= clipped.high).all()


def as_player(trained: TrainedPolicy) -> Player:
    return Player(io.BytesIO(to_bytes(trained.arrays())))


def test_player_with_running_statistics_begins_again_when_it_is_told():
    player = as_player(make(*CASES["running"]))
    observations = observations_for(make(*CASES["running"]), 3)
    first = [player(observation) for observation in observations]
    assert not np.allclose(player(observations[0]), first[0])
    player.reset()
    np.testing.assert_array_equal([player(observation) for observation in observations], first)
    player.reset()
    together = player(observations)
    player.reset()
    np.testing.assert_allclose(together[0], player(observations[0]), atol=1e-6)


@pytest.mark.parametrize("format", SUFFIXES)
def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(format, tmp_path):
    trained = make(*CASES["mlp"])
    by_hand = trained.replace(metadata=dataclasses.replace(trained.metadata, cloning=None))
    for policy, words in (
        (trained.replace(spaces=None), "spaces: missing, expected the environment of the policy beside its file"),
        (by_hand, "expected cloning settings, got none"),
        (trained.replace(spaces=policies.PolicySpaces.of(IMAGE)), "params: expected shapes"),
    ):
        with pytest.raises(ExportError, match=f"policy.x: .*{words}"):
            export_policy(policy, tmp_path / "policy.x", format)
    assert list(tmp_path.iterdir()) == []


def test_module_that_is_no_player_stays(tmp_path):
    (tmp_path / "player.py").write_text("print('a game')\n")
    with pytest.raises(ExportError, match="expected a folder without a player.py"):
        export_policy(make(*CASES["mlp"]), tmp_path / "policy.npz", "numpy")
    with pytest.raises(ExportError, match="expected another name than that of the player"):
        export_policy(make(*CASES["mlp"]), tmp_path / "player.py", "numpy")
    assert (tmp_path / "player.py").read_text() == "print('a game')\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_outputs_that_are_not_ours_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("hades.export.player._ACTIVATIONS", {"tanh": np.sin})
    with pytest.raises(ExportError, match="expected outputs within 1e-05 of ours, got"):
        export_policy(make(*CASES["mlp"]), tmp_path / "policy.npz", "numpy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["numpy", "flax"])
def test_networks_that_a_format_does_not_know_are_refused(format, tmp_path):
    settings = CloningSettings(policy="convnet", hidden_sizes=(4,), loss="cross_entropy")
    spaces = policies.PolicySpaces((8, 8, 1), Discrete(3))
    with pytest.raises(ExportError, match=f"expected mlp, residual_mlp or cnn for {format}, got convnet"):
        export_policy(make(spaces, "none", settings), tmp_path / "policy", format)
    assert list(tmp_path.iterdir()) == []


def test_onnx_refuses_running_statistics(tmp_path):
    with pytest.raises(ExportError, match="got a running one, whose statistics change"):
        export_policy(make(*CASES["running"]), tmp_path / "policy.onnx", "onnx")


def test_onnx_names_the_extra_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"onnx needs onnxruntime: pip install 'hades-distillation\[onnx\]'"):
        export_policy(make(*CASES["mlp"]), tmp_path / "policy.onnx", "onnx")


def test_files_without_spaces_need_an_environment(tmp_path):
    trained = make(*CASES["mlp"])
    trained.replace(spaces=None).save(tmp_path / "policy.npz")
    loaded = TrainedPolicy.load(tmp_path / "policy.npz")
    assert loaded.spaces is None
    with pytest.raises(PolicyFileError, match="spaces: missing"):
        loaded.architecture()
    export_policy(loaded, tmp_path / "out.npz", "numpy", env=VECTOR)
    with pytest.raises(ValueError, match="expected a policy file with spaces"):
        Player(tmp_path / "policy.npz")
