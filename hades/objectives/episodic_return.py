"""The objective of HaDES and of neuroevolution: the return of first episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from hades.distributions import ActionSelection
from hades.fitness import Problem
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.rollouts.first_episode import PureRollout, group_size_of, make_rollout
from hades.rollouts.settings import PlaySettings
from hades.rollouts.statistics import initial_normalizer
from hades.types import Environment, Metrics, Params, Policies


@struct.dataclass
class EpisodicReturn:
    """Mean return of the first episode of each environment (Behaviour Distillation, arXiv 2406.15042, section 4).

    A `hades.types.Objective` whose state is the normalisation of observations, and whose problem is that and a key of
    each initialisation.

    Attributes:
        env: Environment.
        policy: Architecture that plays.
        num_episodes: Episodes of each policy.
        settings: Normalisation of observations, and the choice of actions.
        normalization_envs: With running normalisation, episodes that share statistics; all of a policy's if None.
        statistics: Given normalisation, in place of the one that `init` would measure.
        halvings: Times that a rollout goes on with half of the candidates, see `hades.rollouts.make_rollout`.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> objective = EpisodicReturn(env, hades.policies.mlp(env), num_episodes=4)
        >>> objective.normalizer(objective.init(jax.random.key(0))).kind
        'fixed'
    """

    env: Environment = struct.field(pytree_node=False)
    policy: Policy = struct.field(pytree_node=False)
    num_episodes: int = struct.field(pytree_node=False, default=2)
    settings: PlaySettings = struct.field(pytree_node=False, default=PlaySettings())
    normalization_envs: int | None = struct.field(pytree_node=False, default=None)
    statistics: Normalizer | None = None
    halvings: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self) -> None:
        """Refuses episodes that do not make whole groups of shared statistics."""
        group_size_of(self.num_episodes, self.normalization_envs)

    @property
    def action_selection(self) -> ActionSelection:
        """Whether policies act by a sample of their distribution or by its mode."""
        return self.settings.action_selection

    def init(self, key: jax.Array) -> Normalizer:
        """Measures fixed statistics on episodes of random actions, where they are asked for and not given.

        Raises:
            ValueError: Given ones are running, or are to be, and those of the settings are not.
        """
        if self.statistics is None:
            return initial_normalizer(key, self.env, self.settings)
        # Files and evaluations take from the settings whether an evaluation gathers statistics of its own.
        if "running" in (self.statistics.kind, self.settings.observation_normalization):
            self.settings.require_kind(self.statistics)
        return self.statistics

    def draw(self, key: jax.Array, state: Normalizer, policies: Policies) -> tuple[Problem, Normalizer, Metrics]:
        """Draws the random numbers of this iteration's episodes."""
        # Whole on every device: it is cheaper drawn than sent.
        noise = policies.gather(self.rollout.draw(jax.random.split(key, policies.num_inits)))
        return Problem(noise, state), state, {}

    def value(self, problem: Problem, params: Params) -> tuple[jax.Array, Metrics]:
        """Plays; candidates share first states and noise."""
        episodes = self.rollout(problem.per_init, params, problem.shared)
        values = jnp.mean(episodes.returns, axis=-1)
        return values, {"env_steps": jnp.sum(episodes.lengths, axis=(1, 2))}

    @property
    def rollout(self) -> PureRollout:
        """Plays the episodes of an iteration."""
        return make_rollout(
            self.env,
            self.policy,
            self.num_episodes,
            self.action_selection,
            self.normalization_envs,
            self.halvings,
        )

    def normalizer(self, state: Normalizer) -> Normalizer:
        """Normalisation that policies see observations by."""
        return state
