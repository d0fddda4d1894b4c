"""Neuroevolution, the baseline without a dataset: an evolution strategy on the policy's own parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hades import policies
from hades._environment_contract import conform
from hades.inner.identity import Identity
from hades.normalization import Normalizer
from hades.parametrizations import PolicyParameters
from hades.policies import NetworkSettings
from hades.policy_file import TrainedPolicy
from hades.recipes.population import PopulationSettings, evolution_run, resolve_normalization
from hades.run import Run
from hades.sharding import MeshOrDevices
from hades.types import Environment, require_pure


@dataclass(frozen=True)
class NeuroevolutionSettings(PopulationSettings):
    """Neuroevolution: an evolution strategy on the policy's own parameters."""

    network: NetworkSettings = NetworkSettings()
    """The policy."""
    zero_init: bool = False
    """Whether all parameters begin at zero, as in the published runs, or as the network's initialiser draws them."""

    def __post_init__(self) -> None:
        """Refuses also an activation that is drawn, since evolution would move what was drawn."""
        super().__post_init__()
        if self.network.activation == "tanh_or_relu":
            raise ValueError("activation: expected one activation, as evolution moves all parameters, got tanh_or_relu")

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return "es"


def neuroevolution(
    env: Environment, *, mesh: MeshOrDevices | None = None, normalizer: Normalizer | None = None, **settings: Any
) -> Run[TrainedPolicy]:
    """Evolution strategies as an alternative to reinforcement learning (Salimans et al. 2017, arXiv 1703.03864).

    The same outer loop and rollout as HaDES, with the policy's parameters as the solution and no cloning: the baseline
    of Behaviour Distillation (arXiv 2406.15042, section 5).

    Args:
        env: Environment.
        mesh: Devices that candidates and inits are spread over; all that JAX has if None.
        normalizer: Given observation statistics, in place of those that `init` would measure.
        **settings: Fields of `NeuroevolutionSettings`.

    Raises:
        ValueError: A setting does not suit the environment; the message names it.

    Example:
        >>> import envs, hades, jax
        >>> run = neuroevolution(envs.make("diagnostic/match"), population_size=8)
        >>> result = hades.train(jax.random.key(0), run, num_iterations=2, progress=False)
        >>> result.policy.metadata.method
        'es'
    """
    return neuroevolution_run(env, NeuroevolutionSettings(**settings), mesh=mesh, normalizer=normalizer)


def neuroevolution_run(
    env: Environment,
    settings: NeuroevolutionSettings,
    *,
    mesh: MeshOrDevices | None = None,
    normalizer: Normalizer | None = None,
) -> Run[TrainedPolicy]:
    """Neuroevolution with given settings. Arguments and errors of `neuroevolution`."""
    settings = resolve_normalization(settings)
    settings = dataclasses.replace(settings, evolution=settings.evolution.resolved())
    env = conform(require_pure(env))
    policy = policies.from_settings(env, settings.network)
    parameters = PolicyParameters(policy, settings.zero_init)
    inner = Identity(policy, settings.network)
    return evolution_run(env, parameters, inner, settings, mesh, normalizer, method=settings.method)
