"""`hades bench transfer` at tiny sizes: its rows, its scores over files, and optimisers whose state accumulates."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import envs
from experiments.bench._lib.seeds import score_seeds, table_key
from experiments.bench._lib.variants import OWN, UNTRAINED, ZERO
from experiments.bench.transfer import TransferSettings, Variant, variants
from experiments.cli import BadArgumentsError
from hades.dataset import SyntheticDataset
from hades.evaluation import dataset_evaluator, zero_dataset
from hades.fitness import draw_inits
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.offline.scores import D4RL_REFERENCES
from hades.statistics import interquartile_interval, interquartile_mean
from tests.experiments.command import Outcome

OWN_LOOP = CloningSettings(
    hidden_sizes=(4, 4), kernel_init="lecun_normal", optimizer="sgd", learning_rate=0.1, loss="mse", num_steps=20
)
FLAGS = ("--num-inits", "2", "--num-episodes", "3", "--seed", "3")
Run = Callable[..., Outcome]


def make_dataset(seed: int, loop: CloningSettings = OWN_LOOP, init_seed: int | None = None) -> SyntheticDataset:
    """Five pairs of `diagnostic/target`, whose best action is half of the observation, and noise."""
    state_key, noise_key = jax.random.split(jax.random.key(seed))
    observations = jax.random.uniform(state_key, (5, 2), minval=-1.0)
    metadata = FileMetadata(
        env="diagnostic/target", max_episode_steps=4, method="offline-pbc", observation_normalization="none",
        action_selection="mode", cloning=loop, init_seed=init_seed, seed=seed,
    )  # fmt: skip
    noise = 0.3 * jax.random.normal(noise_key, (5, 2))
    return SyntheticDataset(observations, actions=observations / 2 + noise, metadata=metadata)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"seed{seed}.npz" for seed in range(3)]
    for seed, path in enumerate(paths):
        make_dataset(seed).save(path)
    return paths


def default_variants(own: CloningSettings = OWN_LOOP, **changes: Any) -> list[Variant]:
    return variants(own, TransferSettings(files=(Path("a.npz"),), **changes))


def test_rows_stand_beside_the_settings_of_the_files() -> None:
    rows = default_variants(dataclasses.replace(OWN_LOOP, hidden_sizes=(8, 8, 8)))
    shapes = [(row.cloned.policy, row.cloned.hidden_sizes) for row in rows[:6]]
    assert shapes == [*(("mlp", (8,) * depth) for depth in (2, 3, 4, 5, 6)), ("residual_mlp", (8, 8, 8))]
    assert {(row.cloned.optimizer, row.cloned.learning_rate) for row in rows[:6]} == {("sgd", 0.1)}
    named = {row.name: (row.cloned.optimizer, row.cloned.learning_rate, row.cloned.momentum) for row in rows[6:10]}
    assert named == {
        "adam, rate 0.005": ("adam", 0.005, 0.0),
        "adamw, rate 0.005": ("adamw", 0.005, 0.0),
        "sgd, rate 0.1": ("sgd", 0.1, 0.0),
        "sgd, mom. 0.9, rate 0.1": ("sgd", 0.1, 0.9),
    }
    assert [(row.name, row.ensemble) for row in rows[10:]] == [("ensemble of 1", 1), ("ensemble of 10", 10)]
    assert sum((row.cloned, row.ensemble) == (rows[1].cloned, 1) for row in rows) == 3  # its own, once in each table


def test_rates_widths_and_depths_are_those_of_the_flags() -> None:
    flags = {"adam_learning_rate": 0.02, "sgd_learning_rate": 0.3, "momentum_learning_rate": 0.04, "sgd_momentum": 0.5}
    rows = default_variants(tables=("optimisers",), **flags)
    assert [row.cloned.learning_rate for row in rows] == [0.02, 0.02, 0.3, 0.04]
    assert [row.cloned.momentum for row in rows] == [0.0, 0.0, 0.0, 0.5]
    adam = dataclasses.replace(OWN_LOOP, optimizer="adam", learning_rate=0.07)
    assert [row.cloned.learning_rate for row in default_variants(adam, tables=("optimisers",))] == [
        0.07,
        0.07,
        0.1,
        0.1,
    ]
    uneven = dataclasses.replace(OWN_LOOP, hidden_sizes=(8, 4))
    with pytest.raises(BadArgumentsError, match=r"--width: expected a number, as the hidden layers .* \(8, 4\)"):
        default_variants(uneven)
    rows = default_variants(uneven, tables=("architectures",), width=3, depths=(1,), residual_depth=4)
    assert [row.cloned.hidden_sizes for row in rows] == [(3,), (3, 3, 3, 3)]


@pytest.mark.slow
def test_scores_are_over_files(files: list[Path], tmp_path: Path, hades: Run) -> None:
    out = tmp_path / "results" / "transfer.json"
    outcome = hades("bench", "transfer", *files, *FLAGS, "--depths", "3", "--ensembles", "1", "2",
                    "--momentum-learning-rate", "1e30", "--out", out, "--json")  # fmt: skip
    assert outcome.code == 0
    result = outcome.json
    assert result == json.loads(out.read_text())
    assert (result["scale"], result["method"], result["file_seeds"]) == ("returns", "offline-pbc", [0, 1, 2])
    env = envs.make("diagnostic/target", max_steps=4)
    evaluator = dataset_evaluator(env, make_dataset(0), 2, 3)
    datasets = [make_dataset(seed) for seed in range(3)]
    own = [evaluator(table_key(3, index), dataset).returns for index, dataset in enumerate(datasets)]
    zero = [evaluator(table_key(3, index), zero_dataset(dataset)).returns for index, dataset in enumerate(datasets)]
    found = result["references"]
    assert set(found) == {OWN, ZERO, UNTRAINED}
    np.testing.assert_allclose(found[OWN]["scores"], [values.mean() for values in own], rtol=1e-6)
    np.testing.assert_allclose(found[ZERO]["scores"], [values.mean() for values in zero], rtol=1e-6)
    assert len(set(found[OWN]["scores"])) == 3
    scores = np.array(found[OWN]["scores"])
    assert found[OWN]["iqm"] == pytest.approx(float(interquartile_mean(scores)))
    assert found[OWN]["ci95"] == list(interquartile_interval(scores))
    tables = result["tables"]
    assert [row["name"] for row in tables["architectures"]] == ["mlp 3x4 tanh, sgd", "residual_mlp 2x4 tanh, sgd"]
    for name, place in (("optimisers", 2), ("ensembles", 0)):
        assert [row["own"] for row in tables[name]].index(True) == place
        assert tables[name][place]["scores"] == found[OWN]["scores"]
    pair = dataset_evaluator(env, datasets[1], 2, 3, ensemble=2)(table_key(3, 1), datasets[1])
    assert tables["ensembles"][1]["scores"][1] == pytest.approx(float(pair.returns.mean()))
    deep = cloning.from_settings(env, dataclasses.replace(OWN_LOOP, hidden_sizes=(4, 4, 4)))
    deeper = dataset_evaluator(env, datasets[2], 2, 3, deep)(table_key(3, 2), datasets[2])
    assert tables["architectures"][0]["scores"][2] == pytest.approx(float(deeper.returns.mean()))
    wild = tables["optimisers"][3]
    assert (wild["iqm"], wild["ci95"], wild["scores"]) == (None, None, [None] * 3)
    assert wild["num_diverged"] == [2, 2, 2]
    assert "ensemble of 1 (own)" in outcome.err and "sgd, mom. 0.9, rate 1e+30" in outcome.err


def test_scores_are_normalised_where_d4rl_has_a_reference() -> None:
    reference = D4RL_REFERENCES["gymnasium/Hopper-v4"]
    middle = (reference.random + reference.expert) / 2
    row = score_seeds([np.array([[reference.expert], [middle]]), np.array([[reference.random]])], reference)
    np.testing.assert_allclose(row["scores"], [75.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(row["per_init"][0], [100.0, 50.0])
    assert row["iqm"] == pytest.approx(37.5)


@pytest.mark.parametrize(
    ("index", "reference"),
    [
        (0, optax.adam(0.005, eps=1e-5)),
        (1, optax.adamw(0.005, eps=1e-5, weight_decay=0.01)),
        (3, optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["adam", "adamw", "momentum"],
)
def test_state_of_optimisers_accumulates(index: int, reference: optax.GradientTransformation) -> None:
    """A state made anew at every step, as in the released evaluators of arXiv 2410.22728, gives other parameters."""
    env, dataset, key = envs.make("diagnostic/target", max_steps=4), make_dataset(0), jax.random.key(5)
    variant = default_variants(dataclasses.replace(OWN_LOOP, num_steps=3), tables=("optimisers",))[index]
    clone = cloning.from_settings(env, variant.cloned)
    trained = dataset_evaluator(env, dataset, 1, 1, clone).train(key, dataset)
    # The evaluation parts its key into those of inits, episodes and references.
    init_key = jax.random.split(key, 3)[0]
    start = jax.tree.map(lambda leaf: leaf[0], draw_inits(clone, init_key, 1).initial)

    def loss(params: Any) -> jax.Array:
        hidden = dataset.observations
        for layer in ("Dense_0", "Dense_1"):
            hidden = jnp.tanh(hidden @ params["torso"][layer]["kernel"] + params["torso"][layer]["bias"])
        error = hidden @ params["head"]["kernel"] + params["head"]["bias"] - dataset.actions
        return jnp.mean(jnp.sum(error**2, axis=1))

    @jax.jit
    def train() -> tuple[Any, Any]:
        keeps, forgets, state = start, start, reference.init(start)
        for _ in range(3):
            updates, state = reference.update(jax.grad(loss)(keeps), state, keeps)
            keeps = optax.apply_updates(keeps, updates)
            updates, _ = reference.update(jax.grad(loss)(forgets), reference.init(forgets), forgets)
            forgets = optax.apply_updates(forgets, updates)
        return keeps, forgets

    def distance(expected: Any) -> float:
        gaps = jax.tree.map(lambda one, other: jnp.max(jnp.abs(one[0, 0] - other)), trained, expected)
        return float(max(jax.tree.leaves(gaps)))

    keeps, forgets = train()
    assert distance(keeps) < 1e-6
    assert distance(forgets) > 1e-4


def test_hades_f_files_are_scored_with_fresh_initialisations(tmp_path: Path, hades: Run) -> None:
    make_dataset(0, init_seed=7).save(tmp_path / "fixed.npz")
    result = hades("bench", "transfer", tmp_path / "fixed.npz", *FLAGS, "--tables", "ensembles", "--ensembles", "1",
                   "--json").json  # fmt: skip
    expected = dataset_evaluator(envs.make("diagnostic/target", max_steps=4), make_dataset(0), 2, 3)
    assert result["references"][OWN]["scores"][0] == pytest.approx(
        float(expected(table_key(3, 0), make_dataset(0)).returns.mean())
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-inits", "0"], "num_inits: expected a number above 0"),
        (["--depths", "2", "0"], "depths: expected a number above 0, got 0"),
        (["--ensembles", "-1"], "ensembles: expected a number above 0"),
        (["--sgd-momentum", "1"], "sgd_momentum: expected a number between 0 and 1, got 1.0"),
        (["--adam-learning-rate", "0"], "adam_learning_rate: expected a number above 0"),
        (["--env", "diagnostic/match"], "--env: "),
    ],
)
def test_bad_flags_are_refused(flags: list[str], message: str, files: list[Path], hades: Run) -> None:
    outcome = hades("bench", "transfer", *files, *flags)
    assert outcome.code == 2
    assert message in outcome.unboxed


def test_files_have_to_be_seeds_of_one_method(files: list[Path], tmp_path: Path, hades: Run) -> None:
    outcome = hades("bench", "transfer")
    assert (outcome.code, "files: expected at least one" in outcome.unboxed) == (2, True)
    outcome = hades("bench", "transfer", files[0], files[1], files[0])
    assert (outcome.code, "expected each file once" in outcome.unboxed) == (2, True)
    make_dataset(9, dataclasses.replace(OWN_LOOP, num_steps=7)).save(tmp_path / "other.npz")
    outcome = hades("bench", "transfer", files[0], tmp_path / "other.npz")
    assert outcome.code == 2
    assert "other.npz: expected the cloning of" in outcome.unboxed
