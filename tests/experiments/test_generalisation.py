"""`hades bench generalisation` at tiny sizes: its cells, its counts, and what it writes."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

import envs
from experiments.bench._lib import generalisation_report as report
from experiments.bench._lib.files import read_file
from experiments.bench._lib.grid import Grid, architecture, distinct, make_panels, optimisers
from experiments.bench._lib.variants import OWN, UNTRAINED, ZERO, VariantEvaluation, evaluate_variant, threshold_return
from experiments.pictures.generalisation import generalisation_figure
from hades import recipes
from hades.dataset import SyntheticDataset
from hades.evaluation import Evaluation, dataset_evaluator
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.outer.evolution import EvolutionSettings
from hades.policies import Activation, KernelInit
from hades.recipes.hades import HadesSettings
from tests.experiments.command import Outcome

OWN_LOOP = CloningSettings(hidden_sizes=(4,), kernel_init="lecun_normal", learning_rate=0.1, num_steps=20)
SMALL = Grid(widths=(4, 8), depths=(1, 2), learning_rate_factors=(0.01, 1.0), step_factors=(0.5, 1.0))
SMALL_FLAGS = (
    "--widths", "4", "8", "--depths", "1", "--learning-rate-factors", "0.01", "1", "--step-factors", "0.5", "1",
    "--num-inits", "2", "--num-episodes", "2", "--seed", "3",
)  # fmt: skip
Run = Callable[..., Outcome]


def save(path: Path, loop: CloningSettings = OWN_LOOP, init_seed: int | None = None) -> Path:
    method = "hades-r" if init_seed is None else "hades-f"
    settings = HadesSettings(
        method=method,
        init_seed=init_seed,
        dataset_size=3,
        population_size=4,
        observation_normalization="none",
        cloning=loop,
        evolution=EvolutionSettings(),
    )
    run = recipes.from_settings(envs.make("diagnostic/match"), settings)
    run.describe(SyntheticDataset(3 * jnp.eye(3), action_probabilities=jnp.eye(3)), seed=0).save(path)
    return path


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    return save(tmp_path / "match.npz")


def cells_of(file: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for panel in file["panels"] for row in panel["cells"] for cell in row]


def test_panels_stand_around_the_settings_of_the_file() -> None:
    size, network, optimiser, budget = make_panels(OWN_LOOP, Grid())
    # The file's own width is not among those of the grid.
    assert (size.rows, size.columns) == (("1", "2", "3", "4"), ("4", "32", "64", "128", "256", "512"))
    assert size.cells[2][1] == dataclasses.replace(OWN_LOOP, hidden_sizes=(32, 32, 32))
    assert network.rows == tuple(name for name in get_args(Activation) if name != "tanh_or_relu")
    assert [cell.kernel_init for cell in network.cells[0]] == list(get_args(KernelInit))
    assert [row[0].optimizer for row in optimiser.cells] == ["adam", "adamw", "sgd", "sgd"]
    assert [row[0].momentum for row in optimiser.cells] == [0.0, 0.0, 0.0, 0.9]
    np.testing.assert_allclose([cell.learning_rate for cell in optimiser.cells[1]], [0.01, 0.03, 0.1, 0.3, 1.0])
    assert [row[0].num_steps for row in budget.cells] == [5, 10, 20, 40, 80]
    for panel in (size, network, optimiser, budget):
        assert sum(cell == OWN_LOOP for row in panel.cells for cell in row) == 1
    cells = distinct(OWN_LOOP, [size, network, optimiser, budget])
    # Their own settings once, not four times.
    assert len(cells) == len(set(cells)) == 24 + 20 + 20 + 25 - 3 - 4
    order = [architecture(cell) for cell in cells]
    assert order[0] == architecture(OWN_LOOP)
    assert sum(one != other for one, other in itertools.pairwise(order)) == len(set(order)) - 1


@pytest.mark.parametrize(
    ("changes", "bases", "momentum"),
    [
        ({"optimizer": "adamw", "learning_rate": 0.02}, [0.02, 0.02, 0.1, 0.1], 0.9),
        ({"optimizer": "sgd", "learning_rate": 0.7, "momentum": 0.5}, [0.005, 0.005, 0.7, 0.7], 0.5),
        ({"optimizer": "sgd", "learning_rate": 0.7}, [0.005, 0.005, 0.7, 0.7], 0.9),
    ],
)
def test_base_rates_are_those_of_the_family(changes: dict[str, Any], bases: list[float], momentum: float) -> None:
    own = dataclasses.replace(OWN_LOOP, **changes)
    rows = optimisers(own)
    assert [row.base_rate for row in rows] == bases
    assert rows[3].changes["momentum"] == momentum
    (panel,) = make_panels(own, dataclasses.replace(SMALL, panels=("optimiser",)))
    assert [cell == own for row in panel.cells for cell in row].count(True) == 1


def test_learned_step_sizes_leave_the_panels_that_vary_the_optimiser() -> None:
    own = dataclasses.replace(OWN_LOOP, optimizer="sgd", learning_rate=1.0, num_steps=6, step_sizes="learned")
    size, network, optimiser, budget = make_panels(own, SMALL)
    for panel, learned in ((size, True), (network, True), (optimiser, False), (budget, False)):
        assert {cell.step_sizes for row in panel.cells for cell in row} == {"learned" if learned else "fixed"}
    assert own.with_fixed_steps in optimiser.cells[0]


def test_layers_of_different_widths_have_no_cell_among_equal_ones() -> None:
    own = dataclasses.replace(OWN_LOOP, hidden_sizes=(8, 4))
    size, network = make_panels(own, dataclasses.replace(SMALL, panels=("network", "size")))
    assert own not in [cell for row in size.cells for cell in row]
    assert own in [cell for row in network.cells for cell in row]


def test_result_tables_and_picture(dataset_file: Path, tmp_path: Path, hades: Run) -> None:
    fixed = save(tmp_path / "fixed.npz", init_seed=7)
    out = tmp_path / "results" / "both.json"
    outcome = hades("bench", "generalisation", dataset_file, fixed, *SMALL_FLAGS, "--panels", "size", "budget",
                    "--out", out, "--json")  # fmt: skip
    assert outcome.code == 0
    result = outcome.json
    assert result == json.loads(out.read_text())
    assert result["unfinished"] == []
    assert "5/10 " in outcome.err and "left" in outcome.err
    for file, path in zip(result["files"], (dataset_file, fixed), strict=True):
        assert [panel["name"] for panel in file["panels"]] == ["size", "budget"]
        evaluated = hades("evaluate", path, "--num-inits", "2", "--num-episodes", "2", "--seed", "3", "--baselines",
                          "--json").json  # fmt: skip
        keys = ("mean", "std", "ci95", "interval", "per_init", "num_inits", "num_episodes")
        assert file["references"][OWN] == {key: evaluated[key] for key in keys}
        assert file["references"][ZERO] == evaluated["baselines"]["zero dataset"]
        assert file["references"][UNTRAINED] == evaluated["baselines"]["untrained policy"]
        own = [cell for cell in cells_of(file) if cell["own"]]
        assert len(own) == 2 and own[0] == own[1] and own[0]["changes"] == {}
        # Only of a HaDES-F file do the cells draw other initialisations than its own score has.
        assert (own[0]["per_init"] == evaluated["per_init"]) == (path is dataset_file)
        distinct_cells = {json.dumps(cell["changes"]): cell for cell in cells_of(file)}
        threshold = threshold_return(evaluated["mean"], 0.9)
        reaching = sum(cell["mean"] >= threshold for cell in distinct_cells.values())
        assert (file["num_cells"], file["num_reaching"]) == (5, reaching)
        assert file["fraction"] == reaching / 5
    fresh, of_fixed = ([cell["mean"] for cell in cells_of(file)] for file in result["files"])
    assert fresh == of_fixed  # the same pairs, the same keys, the same fresh initialisations
    assert len(set(fresh)) > 1
    markdown = out.with_suffix(".md").read_text()
    assert "## 2. diagnostic/match, 3 pairs by hades-f" in markdown
    assert markdown.count("| cloning steps | 0.01 | 1 |") == 2
    assert f"own {result['files'][0]['references'][OWN]['mean']:.4g} +" in markdown
    assert matplotlib.image.imread(out.with_suffix(".png")).shape[1] > 800


def test_policies_that_diverge_are_counted(dataset_file: Path) -> None:
    dataset = SyntheticDataset.load(dataset_file)
    env, key = envs.make("diagnostic/match"), jax.random.key(0)
    wild = dataclasses.replace(OWN_LOOP, optimizer="sgd", learning_rate=1e38, momentum=0.9)
    evaluator = dataset_evaluator(env, dataset, 2, 3, cloning.from_settings(env, wild))
    found = evaluate_variant(key, evaluator, dataset)
    assert found == VariantEvaluation(None, 2)
    sound = evaluate_variant(key, evaluator.with_inner_loop(cloning.from_settings(env, OWN_LOOP)), dataset)
    expected = dataset_evaluator(env, dataset, 2, 3)(key, dataset)
    assert sound.evaluation is not None
    np.testing.assert_array_equal(sound.evaluation.returns, expected.returns)


def test_diverged_cells_are_misses_and_drawn_as_such(dataset_file: Path) -> None:
    own = read_file(dataset_file).own
    panels = make_panels(own, dataclasses.replace(SMALL, panels=("size", "budget")))
    cells = distinct(own, panels)
    assert len(cells) == 7 and cells[0] == own
    evaluations = [Evaluation(np.full((2, 2), value), np.ones((2, 2), int)) for value in (10.0, 9.0, 8.9, 12.0)]
    found = [VariantEvaluation(evaluation) for evaluation in evaluations] + [VariantEvaluation(None, 1)] * 3
    anchors = dict(zip((OWN, ZERO, UNTRAINED), evaluations, strict=False))
    file = report.entry(read_file(dataset_file), anchors, 9.0, panels, dict(zip(cells, found, strict=True)))
    assert (file["num_reaching"], file["num_diverged"], file["fraction"]) == (3, 3, 3 / 7)
    diverged = [cell for cell in cells_of(file) if cell["num_diverged"]]
    assert [(cell["mean"], cell["reaches"]) for cell in diverged] == [(None, False)] * 3
    result = {"files": [file], "num_inits": 2, "num_episodes": 2, "seed": 0, "threshold": 0.9, "note": report.NOTE}
    result |= {"unfinished": ["other.npz"]}
    json.dumps(result, allow_nan=False)
    text = report.as_text(result)
    assert "Not finished: other.npz." in text
    rows = [line.split() for line in text.splitlines()]
    assert sum(row.count("diverged") for row in rows if row and row[0].isdigit()) == 3
    figure = generalisation_figure(result)
    size, budget = figure.axes[:2]
    texts = [text.get_text() for axes in (size, budget) for text in axes.texts]
    assert texts.count("diverged") == 3
    assert texts.count("10") == 2  # the file's own cell stands in both panels
    hatched = [patch for axes in (size, budget) for patch in axes.patches if patch.get_hatch()]
    framed = [patch for axes in (size, budget) for patch in axes.patches if not patch.get_hatch()]
    assert (len(hatched), len(framed)) == (3, 2)
    assert np.ma.count_masked(size.images[0].get_array()) + np.ma.count_masked(budget.images[0].get_array()) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threshold", "0"], "threshold: expected a number above 0"),
        (["--num-inits", "0"], "num_inits: expected a number above 0"),
        (["--widths", "8", "0"], "widths: expected a number above 0, got 0"),
        (["--step-factors", "-1"], "step_factors: expected a number above 0"),
        (["--panels", "colour"], "colour"),
        (["--out", "here.txt"], "out: expected a name that ends in .json"),
        (["--picture", "here.txt"], "picture: expected a name that ends in .png"),
    ],
)
def test_bad_flags_are_refused(flags: list[str], message: str, dataset_file: Path, hades: Run) -> None:
    outcome = hades("bench", "generalisation", dataset_file, *flags)
    assert outcome.code == 2
    assert message in outcome.unboxed


def test_files_are_needed_and_have_to_exist(hades: Run) -> None:
    outcome = hades("bench", "generalisation")
    assert outcome.code == 2
    assert "files: expected at least one dataset file" in outcome.unboxed
    outcome = hades("bench", "generalisation", "nowhere.npz")
    assert outcome.code == 1
    assert "nowhere.npz" in outcome.complaint
