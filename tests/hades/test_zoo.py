"""The datasets that come with the package: whole, small, and as their cards say."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import envs
from hades import zoo
from hades.evaluation import check_fits

KILOBYTES = 500
NEEDS = {"gymnasium": "mujoco"}
WITHOUT_SIMULATOR = {"images"}


def test_there_are_a_dozen_and_their_names_are_those_of_their_environments():
    cards = zoo.cards()
    assert len(cards) >= 12
    assert tuple(cards) == zoo.names() == tuple(sorted(zoo.names()))
    assert len({card.env for card in cards.values()}) >= 12
    assert len({card.group for card in cards.values()}) >= 4


@pytest.mark.parametrize("name", zoo.names())
def test_dataset_is_as_its_card_says(name):
    card, dataset = zoo.card(name), zoo.load(name)
    metadata = dataset.metadata
    assert (card.name, card.num_bytes) == (name, zoo.path(name).stat().st_size)
    assert card.num_pairs == dataset.num_pairs
    assert (card.env, card.method, card.seed) == (metadata.env, metadata.method, metadata.seed)
    assert metadata.evaluation.mean == pytest.approx(card.score.mean)
    assert metadata.evaluation.ci95 == pytest.approx(card.score.ci95)
    assert metadata.evaluation.num_inits == card.score.num_inits
    assert metadata.evaluation.num_episodes == card.score.num_episodes
    assert all(command in metadata.source for command in card.commands)
    family = card.env.partition("/")[0]
    assert {"hades", "jax"} | ({family} - WITHOUT_SIMULATOR) <= set(card.versions)


@pytest.mark.parametrize("name", zoo.names())
def test_dataset_beats_its_zeros(name):
    card = zoo.card(name)
    low = card.score.ci95[0]
    assert card.score.num_inits >= 16
    assert low > max(card.zero_dataset.ci95[1], card.untrained_policy.ci95[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_dataset_fits_its_environment(name):
    dataset = zoo.load(name)
    metadata = dataset.metadata
    if (package := NEEDS.get(metadata.env.partition("/")[0])) is not None:
        pytest.importorskip(package)
    if metadata.env not in envs.list_environments() and metadata.env.startswith("images/"):
        pytest.skip("HADES_IMAGES names no folder of these images")
    check_fits(envs.make(metadata.env, **metadata.env_options), dataset)


def test_files_are_small_and_each_has_a_card():
    files = sorted(zoo.FOLDER.iterdir())
    assert {file.suffix for file in files} == {".npz", ".json"}
    assert {file.stem for file in files if file.suffix == ".json"} == set(zoo.names())
    assert sum(file.stat().st_size for file in files) < KILOBYTES * 1000


def test_small_ones_train_a_policy_within_a_second():
    cards = zoo.cards()
    assert {card.training.device for card in cards.values()} == {"cpu"}
    slow = {name: card.training.seconds for name, card in cards.items() if card.training.seconds > 1}
    assert not slow


def test_unknown_name_is_told_the_nearest():
    for function in (zoo.load, zoo.card, zoo.path):
        with pytest.raises(ValueError, match=r"zoo: there is no 'cart-pole', the nearest are cartpole"):
            function("cart-pole")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "acrobot"}, "name: expected 'cartpole', got 'acrobot'"),
        ({"num_pairs": 0}, "num_pairs: expected a number above 0, got 0"),
        ({"commands": []}, "commands: expected one or more, got none"),
        ({"score": {"per_init": [500.0], "num_episodes": 8}}, "per_init: expected two or more finite numbers"),
        ({"score": {"per_init": [500.0, 1.0], "num_episodes": 0}}, "num_episodes: expected a number above 0"),
        ({"training": None}, "training: expected an object, got None"),
    ],
)
def test_malformed_card_is_one_sentence(tmp_path, monkeypatch, changes, words):
    for suffix in (".npz", ".json"):
        shutil.copy(zoo.FOLDER / f"cartpole{suffix}", tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    file = tmp_path / "cartpole.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError) as failure:
        zoo.card("cartpole")
    assert words in str(failure.value)
    assert str(failure.value).startswith(f"{file}: ")


def test_scores_have_the_interval_of_their_policies():
    score = zoo.Score((1.0, 2.0, 3.0), 4)
    assert (score.mean, score.num_inits) == (2.0, 3)
    np.testing.assert_allclose(score.ci95, (-0.484, 4.484), atol=1e-3)
