"""`hades zoo`, and datasets of the zoo in place of files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.bench._lib import runs
from experiments.zoo import listing, making
from experiments.zoo.making import commands_of
from experiments.zoo.recipes import GROUPS, RECIPES, Recipe
from hades import zoo
from hades.policy_file import is_policy_file
from tests.experiments.command import TINY, Outcome

ROOT = Path(__file__).resolve().parents[2]
COUNTS = ("--num-inits", "4", "--num-episodes", "2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of CartPole, and of a copy of it whose card is falsified."""
    for suffix in (".npz", ".json"):
        shutil.copy(zoo.FOLDER / f"cartpole{suffix}", tmp_path / f"cartpole{suffix}")
        shutil.copy(zoo.FOLDER / f"cartpole{suffix}", tmp_path / f"falsified{suffix}")
    card = json.loads((tmp_path / "falsified.json").read_text())
    card["score"]["per_init"] = [value - 20 for value in card["score"]["per_init"]]
    other = {"name": "falsified", "versions": card["versions"] | {"gymnax": "0.9", "hades": "0.0"}}
    (tmp_path / "falsified.json").write_text(json.dumps(card | other))
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return tmp_path


def test_verify_passes_true_cards_and_names_the_falsified_one(hades: Callable[..., Outcome], folder: Path) -> None:
    outcome = hades("zoo", "verify", *COUNTS, "--json")
    assert outcome.code == 1
    result = json.loads(outcome.out)
    true, falsified = result["datasets"]
    assert (true["name"], true["passed"], true["versions"]) == ("cartpole", True, {})
    assert (falsified["name"], falsified["passed"]) == ("falsified", False)
    assert falsified["mean"] == true["mean"] > falsified["card_mean"]
    assert falsified["difference"][0] > 0 >= true["difference"][0]
    assert len(true["per_init"]) == 4
    assert 0 < true["train_seconds"] < 1
    here = zoo.card("cartpole").versions["gymnax"]
    assert falsified["versions"] == {"gymnax": [here, "0.9"]}
    complaint = outcome.err.splitlines()[-1]
    assert complaint.startswith("hades zoo verify: falsified: ")
    assert "not as its card says" in complaint
    assert f"gymnax {here} here, 0.9 there" in complaint
    assert not result["passed"] and len(result["failures"]) == 1


def test_verify_fails_where_a_dataset_cannot_be_scored(hades: Callable[..., Outcome], folder: Path) -> None:
    (folder / "falsified.npz").write_text("text")
    outcome = hades("zoo", "verify", "falsified", *COUNTS)
    assert outcome.code == 1
    assert "falsified: " in outcome.err and "expected an .npz file, found another format" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "cart-pole"), "zoo: there is no 'cart-pole', the nearest are cartpole"),
        (("verify", "--num-inits", "1"), "num_inits: expected two or more, got 1"),
        (("verify", "--num-episodes", "0"), "num_episodes: expected a number above 0, got 0"),
        (("verify", "--level", "1"), "level: expected a number between 0 and 1, got 1.0"),
        (("verify", "--seed", str(making.EVALUATION_SEED)), "--seed: expected another one than that of the cards"),
        (("make", "cart-pole"), "make: expected all, or some of cartpole, "),
        (("show",), "show: expected the name of a dataset, one of "),
        (("shwo",), "expected the name of a command, one of list, show, verify, make, got 'shwo'"),
    ],
)
def test_bad_arguments_are_one_sentence(hades: Callable[..., Outcome], arguments: tuple[str, ...], words: str) -> None:
    outcome = hades("zoo", *arguments)
    assert outcome.code == 2
    assert words in outcome.unboxed


@pytest.mark.parametrize("verb", ["evaluate", "train", "info"])
def test_unknown_name_in_place_of_a_file_is_one_sentence(hades: Callable[..., Outcome], verb: str) -> None:
    outcome = hades(verb, "zoo:cart-pole")
    assert outcome.code == 2
    assert outcome.complaint.startswith(f"hades {verb}: zoo: there is no 'cart-pole', the nearest are cartpole")


def test_images_are_made_where_a_variable_names_their_folder(
    hades: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HADES_IMAGES", raising=False)
    outcome = hades("zoo", "make", "mnist", "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "expected the variable HADES_IMAGES in the environment" in outcome.err


def test_list_has_a_row_for_each_dataset(hades: Callable[..., Outcome]) -> None:
    outcome = hades("zoo")
    assert outcome.code == 0
    assert [name for name in zoo.names() if name not in outcome.out] == []
    result = hades("zoo", "--json").json
    assert {card["name"] for card in result["datasets"]} == set(zoo.names())
    assert hades("zoo", "list", "--markdown", "full").out == listing.markdown(zoo.cards()) + "\n"


def test_show_is_info_with_the_card(hades: Callable[..., Outcome]) -> None:
    shown, info = (hades(*words, "--json").json for words in (("zoo", "show", "cartpole"), ("info", "zoo:cartpole")))
    assert shown == info
    card = zoo.card("cartpole")
    assert shown["card"]["commands"] == list(card.commands)
    assert shown["card"]["score"]["mean"] == card.score.mean
    assert shown["pairs"] == card.num_pairs


def test_verbs_take_a_dataset_of_the_zoo(hades: Callable[..., Outcome]) -> None:
    evaluated = hades("evaluate", "zoo:cartpole", *COUNTS, "--json")
    assert (evaluated.code, evaluated.json["env"]) == (0, "gymnax/CartPole-v1")
    before = sorted(zoo.FOLDER.iterdir())
    trained = hades("train", "zoo:cartpole", "--num-episodes", "4", "--json")
    # Beside the dataset is within the package.
    assert trained.json["out"] == "cartpole_policy.npz"
    assert is_policy_file(Path("cartpole_policy.npz"))
    assert sorted(zoo.FOLDER.iterdir()) == before
    assert hades("merge", "zoo:cartpole", "zoo:acrobot", "--out", "both.npz").code == 0


def test_make_distils_measures_and_writes_a_card(
    hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def start(arguments: list[str], variables: dict[str, str]) -> None:
        started.append(arguments)
        # The run of these very flags.
        shutil.copytree(finished_run, tmp_path / "runs" / "match")

    monkeypatch.setattr(runs, "start_process", start)
    monkeypatch.setitem(RECIPES, "match", Recipe(GROUPS[0], (f"distill {' '.join(TINY)}",), 3, 2))
    folders = ("--runs", tmp_path / "runs", "--out", tmp_path / "out")
    made = hades("zoo", "make", "match", *folders, "--json")
    assert made.code == 0, made.err
    assert made.json["datasets"][0]["name"] == "match"
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "out")
    card, dataset = zoo.card("match"), zoo.load("match")
    assert card.commands == (f"hades {' '.join(('distill', *TINY))} --out $RUNS/match",)
    assert (card.num_pairs, card.num_bytes) == (2, zoo.path("match").stat().st_size)
    assert (card.score.num_inits, card.score.num_episodes, card.seed) == (3, 2, 0)
    assert card.zero_dataset.mean != card.score.mean
    assert dataset.metadata is not None and dataset.metadata.evaluation is not None
    assert dataset.metadata.evaluation.mean == pytest.approx(card.score.mean)
    with np.load(zoo.path("match")) as arrays:
        assert arrays["observations"].dtype == np.float32
    evaluated = hades("evaluate", "zoo:match", "--num-inits", "3", "--num-episodes", "2", "--seed", "1000", "--json")
    assert evaluated.json["per_init"] == list(card.score.per_init)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"match.npz", "match.json"}
    # The run is there, and is measured again only.
    assert hades("zoo", "make", "match", *folders).code == 0
    assert started == [["distill", *TINY, "--out", str(tmp_path / "runs" / "match"), "--resume"]]


@pytest.mark.parametrize("name", zoo.names())
def test_cards_have_the_commands_of_their_recipes(name: str) -> None:
    card = zoo.card(name)
    assert card.commands == tuple(f"hades {words}" for words in commands_of(name))
    assert card.group == RECIPES[name].group
    assert (card.score.num_inits, card.score.num_episodes) == (RECIPES[name].num_inits, RECIPES[name].num_episodes)


def test_every_recipe_has_its_dataset() -> None:
    assert set(RECIPES) == set(zoo.names())


def test_tables_of_the_documentation_are_those_of_the_cards() -> None:
    cards = zoo.cards()
    assert listing.markdown(cards) in (ROOT / "docs" / "zoo.md").read_text()
    assert listing.compact(cards) in (ROOT / "README.md").read_text()


def test_the_stored_verification_is_of_the_present_cards() -> None:
    stored = json.loads((ROOT / "experiments" / "results" / "zoo_verification.json").read_text())
    means = {dataset["name"]: dataset["card_mean"] for dataset in stored["datasets"]}
    assert means == pytest.approx({name: zoo.card(name).score.mean for name in zoo.names()})
    assert all(dataset["passed"] for dataset in stored["datasets"])


@pytest.mark.slow
def test_the_whole_zoo_is_as_its_cards_say(hades: Callable[..., Outcome]) -> None:
    outcome = hades("zoo", "verify", "--json")
    assert outcome.code == 0, outcome.err
