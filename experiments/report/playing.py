"""Episodes of freshly trained policies: their returns, and every step of the first one for the film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.report.scenes import Scene, scene_of
from experiments.report.scenes.scene import Episode
from experiments.report.subject import Subject
from hades.distributions import ActionSelection, choose
from hades.evaluation import DatasetEvaluator, Evaluation, dataset_evaluator
from hades.keys import Stream, stream
from hades.normalization import Normalizer, PolicyParams
from hades.offline.teacher import teacher_policy
from hades.policies import Policy
from hades.rollouts import make_host_recorded_rollout, make_recorded_rollout
from hades.rollouts.recorded import RecordedEpisodes
from hades.types import AnyEnvironment, HostEnvironment, Params, PyTree


@dataclass(frozen=True)
class Performance:
    """Returns of policies, and an episode.

    Attributes:
        evaluation: Their returns.
        episode: First episode of the first policy; None where it diverged at once.
    """

    evaluation: Evaluation
    episode: Episode | None


@dataclass(frozen=True)
class Actors:
    """Policies that play, all of one architecture.

    Attributes:
        env: Environment.
        scene: How it is drawn.
        policy: Architecture.
        networks: Parameters, `[inits, ...]`.
        normalizer: Normalisation of observations, not running.
        play: Plays with networks of these shapes; compiled once.
        train: Trains the networks again on another dataset of their environment, from the same initialisations; None of
            policies that no dataset trained.
    """

    env: AnyEnvironment
    scene: Scene
    policy: Policy
    networks: Params
    normalizer: Normalizer
    play: Callable[[Params], Performance]
    train: Callable[[Any], Params] | None = None


def make_actors(subject: Subject, seed: int, num_inits: int, num_episodes: int) -> Actors:
    """Trains policies on the dataset of a subject, or takes the one that it is.

    Args:
        subject: With an environment.
        seed: Seed of training and playing.
        num_inits: Policies that a dataset trains; one where it belongs to one initialisation.
        num_episodes: Episodes of each; a policy that is there already plays for all `num_inits`.

    Raises:
        ValueError: The subject has no environment; or its policy does not fit.
    """
    env = subject.env
    if env is None:
        raise ValueError(subject.problem)
    train_key, play_key = jax.random.split(stream(jax.random.key(seed), Stream.REPORT))
    train = None
    if subject.dataset is not None:
        evaluator = dataset_evaluator(env, subject.dataset, num_inits, num_episodes)
        policy, normalizer, selection = evaluator.inner.policy, subject.dataset.normalizer(), evaluator.action_selection
        train = partial(_train, evaluator, train_key)
        networks = train(subject.dataset)
    elif subject.policy is not None:
        policy, normalizer = subject.policy.architecture(env), subject.policy.params.normalizer
        selection = subject.policy.metadata.action_selection if subject.policy.metadata else "mode"
        networks = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], subject.policy.params.network)
    else:
        policy, normalizer, selection = teacher_policy, Normalizer(), "mode"
        networks = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], subject.teacher)
    trained = len(jax.tree.leaves(networks)[0])
    scene = scene_of(env)
    play = _make_play(env, scene, policy, normalizer, selection, play_key, trained, num_inits * num_episodes // trained)
    return Actors(env, scene, policy, networks, normalizer, play, train)


def _train(evaluator: DatasetEvaluator, key: jax.Array, dataset: Any) -> Params:
    return jax.tree.map(lambda leaf: leaf[0], evaluator.train(key, dataset))


def _make_play(
    env: AnyEnvironment,
    scene: Scene,
    policy: Policy,
    normalizer: Normalizer,
    selection: ActionSelection,
    key: jax.Array,
    num_inits: int,
    num_episodes: int,
) -> Callable[[Params], Performance]:
    """Makes the function that plays, whatever the parameters, the same first states under the same noise."""
    num_envs = num_inits * num_episodes

    def act_one(key: jax.Array, network: Params, seen: jax.Array) -> jax.Array:
        return choose(key, policy.apply(network, normalizer.apply(seen)), selection)

    def act(key: jax.Array, params: PolicyParams, seen: jax.Array) -> jax.Array:
        grouped = seen.reshape(num_inits, num_episodes, *seen.shape[1:])
        actions = jax.vmap(act_one)(jax.random.split(key, num_inits), params, grouped)
        return actions.reshape(num_envs, *actions.shape[2:])

    if isinstance(env, HostEnvironment):
        on_host = make_host_recorded_rollout(env, act, num_envs, view=scene.view)
        rollout = partial(_call_on_host, on_host, key, num_envs)
    else:
        rollout = partial(jax.jit(make_recorded_rollout(env, act, num_envs, scene.view)), key)

    def play(networks: Params) -> Performance:
        recorded = jax.device_get(rollout(networks))
        shape = (num_inits, num_episodes)
        finite = _are_finite(networks)[:, None]
        returns = np.where(finite, recorded.returns.reshape(shape), np.nan)
        evaluation = Evaluation(returns, np.asarray(recorded.lengths).reshape(shape))
        return Performance(evaluation, _first_episode(recorded))

    return play


def _call_on_host(rollout: Any, key: jax.Array, num_envs: int, networks: Params) -> RecordedEpisodes:
    return rollout(key, networks, num_envs)


def _are_finite(networks: Params) -> np.ndarray:
    """Policies with finite parameters, `[inits]` bool: of discrete actions nothing else tells that one has diverged."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(networks)]
    return np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in leaves], axis=0)


def _first_episode(recorded: RecordedEpisodes) -> Episode | None:
    length = int(recorded.lengths[0])
    if not length:
        return None

    def own(columns: PyTree) -> Any:
        return jax.tree.map(lambda column: np.asarray(column)[:length, 0], columns)

    return Episode(
        own(recorded.observations),
        own(recorded.actions),
        own(recorded.rewards),
        own(recorded.views),
        bool(recorded.terminated[0]),
    )
