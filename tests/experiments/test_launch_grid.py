"""Grid files: which runs they stand for, how these are called, and what is refused before any of them starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.launching import checking
from experiments.launching.grid import load_grid
from experiments.launching.settings import SlurmSettings
from tests.experiments.command import Outcome
from tests.experiments.grids import SEEDS, begin_run, write_grid


def test_lists_make_a_product_beside_further_grids_and_single_runs(tmp_path: Path) -> None:
    text = """
[grid]
env = ["gymnax/CartPole-v1", "brax/hopper"]
seed = [0, 1]
[[grids]]
"cloning.hidden-sizes" = [[4], [8, 8]]
learn-labels = [true, false]
[[runs]]
evolution.sigma = 0.5
[[runs]]
name = "wide"
cloning.hidden_sizes = [512, 512]
num_generations = 7
"""
    grid = load_grid(write_grid(tmp_path, text, top='out = "runs/all"\n'))
    assert [member.name for member in grid.members] == [
        "gymnax-CartPole-v1-seed0", "gymnax-CartPole-v1-seed1", "brax-hopper-seed0", "brax-hopper-seed1",
        "hidden-sizes4-learn-labels", "hidden-sizes4-no-learn-labels", "hidden-sizes8-8-learn-labels",
        "hidden-sizes8-8-no-learn-labels", "sigma0.5", "wide",
    ]  # fmt: skip
    assert {member.out.parent for member in grid.members} == {Path("runs/all")}
    shared = ["--dataset-size=2", "--cloning.num-steps=3", "--resume"]
    assert all(set(shared) < set(member.arguments) for member in grid.members)
    product, further, wide = (grid.members[index].arguments for index in (2, 5, 9))
    assert {"--env=brax/hopper", "--seed=0", "--out=runs/all/brax-hopper-seed0"} < set(product)
    assert "--env=diagnostic/match" not in product
    assert "--no-learn-labels" in further
    assert wide[wide.index("--cloning.hidden-sizes") :][:3] == ["--cloning.hidden-sizes", "512", "512"]
    # Another name of a flag is the same flag.
    assert "--num-iterations=7" in wide and "--num-iterations=2" not in wide


def test_grid_of_the_documentation_can_run(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "launching.md"
    (text,) = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    grid = load_grid(write_grid(tmp_path, text, flags=""))
    assert [member.name for member in grid.members][::6] == ["cartpole-hades-r-seed0", "cartpole-hidden-sizes64"]
    assert len(grid.members) == 9
    checking.check(grid)


def test_names_stay_when_a_list_grows_and_tell_flags_of_one_last_name_apart(tmp_path: Path) -> None:
    first = load_grid(write_grid(tmp_path, '[grid]\nseed = [0]\nmethod = ["hades-r"]\n'))
    grown = load_grid(write_grid(tmp_path, '[grid]\nseed = [0, 1]\nmethod = ["hades-r"]\n'))
    assert first.members[0].name == grown.members[0].name == "seed0-hades-r"
    rates = '[grid]\n"cloning.learning-rate" = [0.1]\n"evolution.learning-rate" = [0.2]\n'
    (both,) = load_grid(write_grid(tmp_path, rates)).members
    assert both.name == "cloning.learning-rate0.1-evolution.learning-rate0.2"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "grid: expected lists of values in [grid] or [[grids]], or flags in [[runs]], got no run"),
        ("[[grids]]\n", "grids[0]: expected lists of values, got none"),
        ("[grid]\nseed = []\n", "grid.seed: expected a list of one value or more, got []"),
        ("[grid]\nseed = 3\n", "grid.seed: expected a list of one value or more, got 3"),
        ("[grid]\nseed = [1979-05-27]\n", "grid.seed: expected a text, a number, true or false, or a list"),
        ('[grid]\n"--seed" = [0]\n', "grid.--seed: expected the name of a flag without dashes in front"),
        ("[grid]\nseed = [0, 0]\n", "grid: expected runs of different values, got two with the folder runs/grid/seed0"),
        ("[grid]\nseed = [0]\n[[runs]]\nseed = 0\n", "got two with the folder runs/grid/seed0"),
        ("[[runs]]\nname = 'a/b'\n", "runs[0].name: expected a name for a folder, other than launch, got 'a/b'"),
        ("[[runs]]\nname = 'launch'\n", "runs[0].name: expected a name for a folder, other than launch"),
        ("[[runs]]\nout = 'x'\n", "runs[0].out: expected no such flag, as each run has a folder"),
        ("[[runs]]\nresume = false\n", "runs[0].resume: expected no such flag, as every run is begun or resumed"),
        ("[[runs]]\nnum-updates = 3\nnum-iterations = 3\n", "runs[0].num-iterations: expected each flag once"),
        (SEEDS + "[local]\nprocs = 2\n", "local.procs: unknown, expected one of processes, devices"),
        (SEEDS + "[local]\nprocesses = 0\n", "local.processes: expected a number above 0, got 0"),
        (SEEDS + "[slurm]\nminutes = 'long'\n", "slurm.minutes: expected an integer, got 'long'"),
        (SEEDS + "[slurm]\nminutes = 2\n", "slurm.grace: expected less than the 120 seconds of a member"),
        (SEEDS + "[slurm]\nnodes = 2\ngpus = 4\nprocesses = 1\n", "slurm.processes: expected 4, as JAX gives"),
        (SEEDS + "[grids]\n", "grids: expected a list, got {}"),
        ("[grid\n", "expected TOML, got: "),
        (SEEDS + "[seeds]\n", "seeds: unknown, expected one of command, out, flags, grid, grids, runs, local, slurm"),
        ("[[runs]]\nseed = 'x'\n", "run x: --seed: invalid literal for int() with base 10: 'x', expected --seed INT"),
        ("[[runs]]\nseeds = 3\n", "run seeds3: Unrecognized options: --seeds=3, expected --seed INT"),
        ("[[runs]]\nseed = -1\n", "run seed-1: seed: expected an integer from 0 to 4294967295, got -1"),
        ("[[runs]]\nenv = 'diagnostic/mach'\n", "run diagnostic-mach: unknown environment 'diagnostic/mach'"),
        ("[[runs]]\nmethod = 'hades-x'\n", "run hades-x: --method: expected one of hades-r"),
        ("[[runs]]\npopulation-size = 7\n", "run population-size7: population_size"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_one_sentence_and_starts_nothing(
    hades: Callable[..., Outcome], text: str, sentence: str
) -> None:
    path = write_grid(Path(), text)
    outcome = hades("launch", "local", path)
    assert outcome.code == 2
    assert outcome.complaint.startswith("hades launch: grid.toml: ")
    assert sentence in outcome.complaint
    assert not Path("runs").exists()


def test_command_and_file_are_checked_too(hades: Callable[..., Outcome]) -> None:
    assert hades("launch", "status", "no.toml").complaint == "hades launch: no.toml: expected a TOML file, found none"
    path = write_grid(Path(), top='command = "destill"\n')
    outcome = hades("launch", "status", path)
    assert outcome.code == 2
    expected = "command: expected one of distill, baseline es, baseline ppo, offline distill, offline teach, "
    expected += "images distill, got 'dest"
    assert expected in outcome.complaint
    data = 'command = "offline distill"\n[flags]\ndata = "none.hdf5"\n'
    outcome = hades("launch", "local", write_grid(Path(), flags=data))
    assert outcome.code == 1
    assert outcome.complaint == "hades launch: none.hdf5: expected an HDF5 file, found nothing there"


def test_grids_of_baselines_and_policy_gradients_are_parsed_by_their_own_flags(tmp_path: Path) -> None:
    ppo = '[flags]\npreset = "cartpole"\n[grid]\nseed = [0]\nnetwork.activation = ["relu"]\n'
    checking.check(load_grid(write_grid(tmp_path, ppo, flags="", top='command = "baseline ppo"\n')))
    # As many devices as another machine may have.
    checking.check(load_grid(write_grid(tmp_path, SEEDS + "devices = [4096]\n")))
    gradients = '[flags]\npreset = "cartpole"\nmethod = "hades-pg"\n[grid]\nmeta-gradient.max-kl = [0.1]\n'
    checking.check(load_grid(write_grid(tmp_path, gradients, flags="")))


def test_changed_grid_is_refused_where_it_contradicts_a_run_and_may_grow(tmp_path: Path) -> None:
    text = '[[runs]]\nname = "first"\nevolution.sigma = 0.25\nmax-seconds = 5\n'
    top = f'out = "{tmp_path}/out"\n'
    grid = load_grid(write_grid(tmp_path, text, top=top))
    checking.keep(grid)
    # Without a run there is nothing to contradict.
    changed = load_grid(write_grid(tmp_path, '[[runs]]\nname = "first"\nevolution.sigma = 0.5\n', top=top))
    checking.check(changed)
    begin_run(grid.members[0])
    without = load_grid(write_grid(tmp_path, '[[runs]]\nname = "first"\n', top=top))
    for other, given in ((changed, "0.5"), (without, "none")):
        with pytest.raises(ValueError) as refused:
            checking.check(other)
        assert str(refused.value) == (
            f"{tmp_path}/grid.toml: run first: --evolution.sigma: the run was launched with 0.25, got {given}; "
            "choose another out"
        )
    # The run's own settings, which the grid left to their defaults before.
    seed = load_grid(write_grid(tmp_path, '[[runs]]\nname = "first"\nevolution.sigma = 0.25\nseed = 3\n', top=top))
    with pytest.raises(ValueError, match="--seed: the run was launched with none, got 3; choose another out"):
        checking.check(seed)


def test_processes_of_a_run_over_several_nodes_are_one_for_each_gpu() -> None:
    one, several = SlurmSettings(gpus=4), SlurmSettings(gpus=4, nodes=2)
    assert (one.processes_per_node, one.is_multihost) == (1, False)
    assert (several.processes_per_node, several.is_multihost) == (4, True)
    assert SlurmSettings(nodes=2).processes_per_node == 1
