"""Image distillation: both outer loops learn, the published settings, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import hades
from hades.images import ImageClassification, LabelledImages
from hades.inner.cloning import CloningSettings
from hades.outer import Averaged, Evolution, EvolutionSettings, MetaGradient, MetaGradientSettings
from hades.recipes import ImageSettings, image_distillation, image_run, paper_images
from hades.types import Discrete
from tests.images import CLASSES, TEST, make_data

TRAIN = make_data()
ENV = ImageClassification("images/bands", make_data(TEST, 1))
CLONING = CloningSettings(
    policy="mlp", hidden_sizes=(8,), activation="relu", optimizer="sgd", learning_rate=0.5, num_steps=12
)
WHOLE = MetaGradientSettings()
SETTINGS = ImageSettings(num_images=60, cloning=CLONING, num_inits=2, meta_gradient=WHOLE)
LOOPS = {
    "meta-gradient": replace(SETTINGS, meta_gradient=MetaGradientSettings(learning_rate=0.05, window=6)),
    "evolution": replace(
        SETTINGS,
        outer="evolution",
        population_size=32,
        evolution=EvolutionSettings(sigma=0.1, learning_rate=0.1, fitness_shaping="centered_rank"),
    ),
}


@pytest.mark.parametrize("outer", [pytest.param("meta-gradient", marks=pytest.mark.slow), "evolution"])
def test_both_outer_loops_learn_from_labels_that_are_wrong(outer: str) -> None:
    """The first images stand under the label of another class: accuracy begins near 0, and ends far above chance."""
    turned = LabelledImages(TRAIN.images, (TRAIN.labels + 1) % CLASSES, CLASSES)
    run = image_run(TRAIN, ENV, LOOPS[outer])
    run = replace(run, parametrization=replace(run.parametrization, data=turned, learn_labels=True))
    key = jax.random.key(0)
    evaluate = run.make_evaluator(4, TEST)
    first = evaluate(key, run.outcome(run.init(key)))
    assert first.mean < 0.15
    result = hades.distill(
        key, run, 60, loop=hades.LoopSettings(evaluate_every=None, iterations_per_call=60), progress=False
    )
    assert evaluate(key, result.outcome).mean > 0.85
    assert result.history[-1]["accuracy"] > 0.8
    assert 0 <= float(result.dataset.observations.min()) <= float(result.dataset.observations.max()) <= 1


def test_outcomes_are_chosen_on_training_images_and_reported_on_test_images() -> None:
    run = image_run(TRAIN, ENV, SETTINGS)
    assert run.make_evaluator(2, 3).env is ENV
    chosen = run.make_selector(2, 3).env
    assert (chosen.data, chosen.split, chosen.name) == (TRAIN, "train", ENV.name)
    dataset = run.describe(run.outcome(run.init(jax.random.key(0))), seed=0)
    assert (dataset.metadata.env, dict(dataset.metadata.env_options)) == ("images/bands", {})
    assert (dataset.metadata.action_selection, dataset.metadata.observation_normalization) == ("mode", "none")
    assert dataset.metadata.cloning == replace(CLONING, loss="cross_entropy")
    with pytest.raises(ValueError, match="num_episodes: expected at most 45"):
        run.make_evaluator(2, 46)


def test_settings_choose_the_parts() -> None:
    learned = replace(CLONING, step_sizes="learned")
    run = image_distillation(TRAIN, ENV, cloning=learned, meta_gradient=WHOLE, average_decay=0.5)
    assert isinstance(run.outer, Averaged) and isinstance(run.outer.outer, MetaGradient)
    assert run.outcome(run.init(jax.random.key(0))).step_sizes.tolist() == [1.0] * 12
    assert (run.inner.window, run.evaluation_inner.window) == (None, None)
    evolved = image_run(TRAIN, ENV, LOOPS["evolution"])
    assert isinstance(evolved.outer, Evolution)
    assert evolved.inner == evolved.evaluation_inner
    assert image_run(TRAIN, ENV, LOOPS["meta-gradient"]).inner.window == 6


def test_the_published_settings() -> None:
    settings = paper_images()
    cloned, evolved = settings.cloning, settings.evolution
    assert (cloned.policy, cloned.hidden_sizes, cloned.activation) == ("cnn", (128,), "relu")
    assert (cloned.optimizer, cloned.learning_rate, cloned.momentum, cloned.num_steps) == ("sgd", 0.1, 0.0, 1000)
    assert (settings.outer, settings.population_size, settings.num_inits) == ("evolution", 512, 2)
    assert (settings.per_class, settings.first_images, settings.learn_labels) == (1, "class_means", False)
    assert (evolved.strategy, evolved.sigma, evolved.sigma_decay) == ("Open_ES", 0.02, 0.999)
    assert (evolved.learning_rate, evolved.learning_rate_decay, evolved.optimizer) == (0.01, 0.999, None)
    run = image_run(TRAIN, ENV, paper_images(candidate_chunk_size=None))
    state = jax.eval_shape(run.init, jax.random.key(0))
    assert jax.eval_shape(run.outcome, state).observations.shape == (CLASSES, 6, 6, 1)
    assert run.env.action_space == Discrete(CLASSES)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"per_class": 0}, "per_class: expected a number above 0, got 0"),
    "too many": ({"per_class": 21}, "per_class: expected at most 20, the images of the smallest class, got 21"),
    "outer": ({"outer": "annealing"}, "outer: expected one of meta-gradient, evolution, got 'annealing'"),
    "accuracy": ({"measure": "accuracy"}, "measure: expected cross_entropy for the meta-gradient"),
    "window": (
        {"meta_gradient": MetaGradientSettings(window=151)},
        "window: expected at most 150, the inner steps, got 151",
    ),
    "loss": ({"cloning": CloningSettings(loss="mse")}, "loss: actions of images/bands are discrete"),
    "average": ({"average_decay": 1.0}, "average_decay: expected a number in [0, 1), got 1.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_do_not_suit_are_refused(case: str) -> None:
    settings, words = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(words)):
        image_distillation(TRAIN, ENV, **{"meta_gradient": MetaGradientSettings(), **settings})


def test_other_images_than_those_of_the_environment_are_refused() -> None:
    other = LabelledImages(jnp.zeros((4, 6, 5, 1)), jnp.arange(4) % CLASSES, CLASSES)
    with pytest.raises(ValueError, match=re.escape("train: expected images of shape (6, 6, 1) in 3 classes")):
        image_distillation(other, ENV)
