"""`hades bench agreement`: the spreads of known actions, and files whose policies agree more or less."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench.agreement import spreads
from hades.dataset import SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from tests.experiments.command import Outcome

LOOP = CloningSettings(
    hidden_sizes=(8,), kernel_init="lecun_normal", head_gain=1.0, optimizer="adam", learning_rate=0.02, num_steps=200
)
Run = Callable[..., Outcome]


def make_dataset(env: str, loop: CloningSettings, normalization: str = "none") -> SyntheticDataset:
    """Pairs that ask for half of the observation in `diagnostic/target`, and for its place in `diagnostic/match`."""
    metadata = FileMetadata(
        env=env, max_episode_steps=4, method="hades-r", observation_normalization=normalization,
        action_selection="sample", cloning=loop, seed=0,
    )  # fmt: skip
    if env == "diagnostic/match":
        return SyntheticDataset(jnp.eye(3), action_probabilities=jnp.eye(3), metadata=metadata)
    observations = jax.random.uniform(jax.random.key(0), (8, 2), minval=-1.0)
    return SyntheticDataset(observations, actions=observations / 2, metadata=metadata)


def test_spreads_of_a_sum_of_offsets_are_those_of_each():
    generator = np.random.default_rng(0)
    inits, states = generator.normal(size=(50, 1, 3)), 4 * generator.normal(size=(1, 70, 3))
    between, across = spreads(inits + states)
    np.testing.assert_allclose(between, np.sqrt(np.mean(np.var(inits, axis=0))), rtol=1e-12)
    np.testing.assert_allclose(across, np.sqrt(np.mean(np.var(states, axis=1))), rtol=1e-12)


@pytest.mark.parametrize(("env", "loss"), [("diagnostic/target", "mse"), ("diagnostic/match", "cross_entropy")])
def test_trained_policies_agree_more_than_hardly_trained_ones(env: str, loss: str, hades: Run, tmp_path: Path):
    for name, num_steps in (("trained", 200), ("hardly", 1)):
        loop = dataclasses.replace(LOOP, loss=loss, num_steps=num_steps)
        make_dataset(env, loop).save(tmp_path / f"{name}.npz")
    out = tmp_path / "agreement.json"
    files = [tmp_path / "trained.npz", tmp_path / "hardly.npz"]
    outcome = hades("bench", "agreement", *files, "--num-inits", "8", "--num-episodes", "2", "--out", out)
    assert outcome.code == 0 and "trained.npz" in outcome.out
    trained, hardly = json.loads(out.read_text())["files"]
    assert trained["share"] < 0.25 and hardly["share"] > 0.5
    # Eight policies, two episodes of four steps each.
    assert trained["num_states"] == 64
    assert trained["return"] > hardly["return"]


def test_files_that_cannot_be_compared_are_refused(hades: Run, tmp_path: Path):
    file = tmp_path / "running.npz"
    make_dataset("diagnostic/target", dataclasses.replace(LOOP, loss="mse"), "running").save(file)
    refused = hades("bench", "agreement", file)
    assert refused.code == 2 and "expected observations normalised by fixed statistics, got running" in refused.err
    one = hades("bench", "agreement", file, "--num-inits", "1")
    assert one.code == 2 and "num_inits: expected at least 2, got 1" in one.unboxed
