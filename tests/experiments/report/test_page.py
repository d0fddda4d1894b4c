"""`hades report` and `hades render`: what a page says, and what they refuse."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import envs
from experiments.report import curves
from experiments.report.subject import load_subject
from hades import policies
from hades.dataset import SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.normalization import PolicyParams
from hades.policy_file import TrainedPolicy
from tests.experiments.command import Outcome, exit_code
from tests.hades.malformed import valid_arrays, valid_metadata, write_file

RESULTS = Path(__file__).parents[3] / "experiments" / "results"
QUICK = ("--num-inits", "2", "--json")


def content(page: Path) -> dict[str, Any]:
    """The JSON of a page."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(data)


def cart_pole(path: Path, **changes: Any) -> Path:
    """Two pairs: push to where the pole leans."""
    metadata = FileMetadata(
        env="gymnax/CartPole-v1",
        max_episode_steps=40,
        env_options={"max_steps": 40},
        method="by hand",
        observation_normalization="none",
        action_selection="mode",
        cloning=CloningSettings(hidden_sizes=(8,), num_steps=30, learning_rate=0.1, loss="cross_entropy"),
    )
    states = jnp.array([[0.0, 0.0, -0.1, -1.0], [0.0, 0.0, 0.1, 1.0]])
    dataset = SyntheticDataset(states, action_probabilities=jnp.eye(2), metadata=replace(metadata, **changes))
    dataset.save(path)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """A page of a run."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert exit_code("report", finished_run, "--out", path, *QUICK) == 0
    return path


def test_a_page_of_a_run_tells_all_of_it(page: Path, finished_run: Path) -> None:
    assert page.stat().st_size < 200_000
    whole = content(page)
    (run,) = whole["runs"]
    summary = json.loads((finished_run / "summary.json").read_text())
    assert whole["title"] == "match"
    assert {row["name"]: row["mean"] for row in run["returns"]} == {
        name: evaluation["mean"] for name, evaluation in summary["evaluations"].items()
    }
    assert ["seed", "0"] in run["settings"] and ["evolution.strategy", "Open_ES"] in run["settings"]
    assert "jax" in dict(run["versions"]) and "git_commit" in dict(run["versions"])
    evaluation = next(line for line in run["curve"]["series"] if line["name"] == "evaluation")
    assert evaluation["iteration"] == [2, 4] and run["curve"]["fitness_is_return"]
    assert run["words"]["measure"] == "return"
    for line in run["curve"]["series"]:
        assert len({len(line[name]) for name in ("iteration", "env_steps", "seconds", "values")}) == 1
    film, pairs = run["film"], run["pairs"]
    assert film["num_frames"] == 10 == len(film["steps"]["returns"]) == len(film["steps"]["acting"])
    assert np.shape(film["steps"]["probabilities"]) == (10, 3) and "cannot be drawn" in film["text"]
    assert pairs["count"] == 2 and len(pairs["removal"]["costs"]) == 2 == len(pairs["nearest"]["steps"])


def test_a_page_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in text and "$" not in re.sub(r"\$\{", "", text.split("<script>")[0])


@pytest.mark.parametrize("verb", ["report", "render"])
def test_a_dataset_file_of_cart_pole(hades: Callable[..., Outcome], verb: str) -> None:
    file = cart_pole(Path("pairs.npz"))
    out = Path("cart.html" if verb == "report" else "cart.gif")
    flags = (*QUICK, "--max-removals", "0") if verb == "report" else ("--width", "120", "--json")
    outcome = hades(verb, file, "--out", out, *flags)
    assert outcome.code == 0, outcome.err
    if verb == "render":
        with Image.open(out) as image:
            # Every other step; Pillow makes one frame of equal ones.
            assert image.size[0] == 120 and 1 < image.n_frames <= -(-outcome.json["steps"] // 2)
        assert outcome.json["return"] == outcome.json["steps"]
        return
    assert outcome.json["bytes"] == out.stat().st_size and outcome.json["problems"] == {}
    (run,) = content(out)["runs"]
    assert run["curve"] is None and run["returns"] == [] and run["fresh"]["mean"] <= 40
    assert run["film"]["steps"]["action_names"] == ["push left", "push right"]
    assert run["pairs"]["picture"]["num_frames"] == 2 and "film" in run
    assert dict(run["settings"])["cloning.hidden_sizes"] == "8"


def test_several_runs_are_compared_and_heat_maps_shown(hades: Callable[..., Outcome], finished_run: Path) -> None:
    shutil.copytree(finished_run, "other/finished")
    dataset = SyntheticDataset.load(finished_run / "dataset.npz")
    policy = policies.from_settings(envs.make("diagnostic/match"), dataset.metadata.require_cloning())
    metadata = replace(dataset.metadata, observation_normalization="none")
    TrainedPolicy(PolicyParams(policy.init(jax.random.key(0))), metadata).save("policy.npz")
    shutil.copy(RESULTS / "generalisation_cartpole.json", "other/finished/generalisation.json")
    runs = (finished_run, Path("other/finished"), Path("policy.npz"))
    outcome = hades("report", *runs, "--out", "page.html", *QUICK, "--max-removals", "0")
    assert outcome.code == 0, outcome.err
    whole = content(Path("page.html"))
    names = [run["name"] for run in whole["runs"]]
    assert names == [str(finished_run), "other/finished", "policy"] and whole["title"] == "3 runs compared"
    assert "pairs" not in whole["runs"][2] and whole["runs"][2]["film"]["num_frames"] == 10
    assert "as asked" in " ".join(whole["runs"][0]["pairs"]["notes"])
    first = whole["generalisation"][0]
    assert (first["own"], first["num_cells"]) == (500, 78) and len(first["panels"]) == 4
    assert np.shape(first["panels"][0]["cells"]) == (4, 5)


def test_names_cannot_become_markup(hades: Callable[..., Outcome]) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    file = cart_pole(Path("<b>.npz"), method=evil, source=evil, env=evil)
    assert hades("report", file, "--out", "page.html").code == 0
    text = Path("page.html").read_text()
    assert "<img" not in text and "<b>" not in text and text.count("</script>") == 2
    (run,) = content(Path("page.html"))["runs"]
    assert dict(run["settings"])["source"] == evil and evil in run["subtitle"] and run["name"] == "<b>"
    assert evil in run["problem"]
    scripts = [path.read_text() for path in (RESULTS.parent / "report" / "template").glob("*.js")]
    assert len(scripts) == 8 and not [
        script for script in scripts if re.search(r"innerHTML|outerHTML|document\.write", script)
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env": "nobody/nowhere", "env_options": {}}, "unknown environment 'nobody/nowhere'"),
        ({"cloning": None}, "expected cloning settings, got none"),
        ({"observation_normalization": "running"}, "running statistics"),
    ],
)
def test_what_cannot_be_played_has_a_page_without_a_film(
    hades: Callable[..., Outcome], changes: dict[str, Any], words: str
) -> None:
    file = cart_pole(Path("pairs.npz"), **changes)
    outcome = hades("report", file, "--out", "page.html", "--json")
    assert outcome.code == 0 and words in outcome.err and "Traceback" not in outcome.err
    (run,) = content(Path("page.html"))["runs"]
    assert words in run["problem"] and "film" not in run and run["pairs"]["count"] == 2
    refused = hades("render", file, "--out", "film.gif")
    assert refused.code == 1 and words in refused.complaint and not Path("film.gif").exists()


def test_a_run_that_has_just_begun(hades: Callable[..., Outcome], finished_run: Path) -> None:
    shutil.copytree(finished_run, "begun")
    for name in ("dataset.npz", "best_dataset.npz", "summary.json"):
        Path("begun", name).unlink()
    outcome = hades("report", "begun", "--out", "page.html", "--json")
    assert outcome.code == 0 and "no dataset, policy or teacher yet" in outcome.err
    (run,) = content(Path("page.html"))["runs"]
    assert run["curve"]["series"] and run["returns"] == [] and "pairs" not in run
    Path("begun", "metrics.jsonl").unlink()
    assert "found one without metrics" in hades("report", "begun", "--out", "page.html").complaint


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("report", "lost", "--out", "page.html"), 1, "lost"),
        (("report", ".", "--out", "page.html"), 1, "config.json"),
        (("report", "--out", "page.html"), 2, "runs: expected at least one"),
        (("report", "pairs.npz", "--out", "page.pdf"), 2, "ends in .html"),
        (("report", "pairs.npz", "--out", "bad.json/page.html"), 1, "bad.json: File exists"),
        (("report", "pairs.npz", "--out", "page.html", "--max-removals", "-1"), 2, "max_removals"),
        (("report", "pairs.npz", "--out", "page.html", "--removal-seconds", "0"), 2, "removal_seconds"),
        (
            ("report", "pairs.npz", "--out", "page.html", "--generalisation", "bad.json"),
            1,
            "bad.json: expected a result",
        ),
        (("render", "pairs.npz", "--out", "film.mp4"), 2, "ends in .gif"),
        (("render", "pairs.npz", "--out", "bad.json/film.gif"), 1, "bad.json: File exists"),
        (("render", "lost.npz", "--out", "film.gif"), 1, "lost.npz"),
        (("render", "bad.json", "--out", "film.gif"), 1, "bad.json"),
    ],
)
def test_bad_input_is_one_sentence(
    hades: Callable[..., Outcome], arguments: tuple[str, ...], code: int, words: str
) -> None:
    cart_pole(Path("pairs.npz"))
    Path("bad.json").write_text('{"files": [{}]}')
    outcome = hades(*arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert words in (outcome.complaint if code == 1 or outcome.err.count("\n") == 1 else outcome.unboxed)
    assert not list(Path().glob("*.html")) and not list(Path().glob("*.gif"))


def test_a_file_of_another_shape_than_its_environment_is_not_played(hades: Callable[..., Outcome]) -> None:
    metadata = valid_metadata(env="diagnostic/match", env_options={})
    write_file(Path("file.npz"), valid_arrays() | {"metadata": metadata})
    refused = hades("render", "file.npz", "--out", "film.gif")
    assert refused.code == 1 and "observations of diagnostic/match" in refused.complaint


def test_all_that_was_evaluated_beside_the_outcome_is_a_reference(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary["evaluations"]["class means"] = summary["evaluations"]["zero dataset"]
    (run / "summary.json").write_text(json.dumps(summary))
    rows = curves.returns_to_list(load_subject(run))
    assert {row["name"] for row in rows if not row["is_reference"]} == {"best dataset", "last dataset"}
    assert {row["name"] for row in rows if row["is_reference"]} >= {"class means", "zero dataset", "untrained policy"}
