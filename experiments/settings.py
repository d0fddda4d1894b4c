"""Settings of the commands: dataclasses that tyro turns into flags, and whose docstrings are the help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

import envs
from hades._validation import require_positive
from hades.distillation import LoopSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.rl.settings import PPOSettings
from hades.types import AnyEnvironment, Environment, require_pure

_Flat = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class EnvironmentOptions:
    """What besides its name makes an environment."""

    backend: str | None = None
    """Physics of a Brax environment: positional, spring, generalized or mjx; none is positional."""
    max_steps: int | None = None
    """Steps after which an episode is cut off; none is the environment's own limit."""

    def make(self, env: str) -> Environment:
        """Makes an environment of pure functions.

        Raises:
            ValueError: The name is unknown, an option does not suit it, or it is simulated outside of JAX.
        """
        return require_pure(self.make_any(env))

    def make_any(self, env: str) -> AnyEnvironment:
        """Makes the environment. Raises `ValueError` for an unknown name, or an option that does not suit it."""
        return envs.make(env, **self.given())

    def given(self) -> dict[str, Any]:
        """The options that are not left to the environment."""
        options = {"backend": self.backend, "max_steps": self.max_steps}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run has, whatever its method."""

    env: str | None = None
    """Environment, such as gymnax/CartPole-v1 or brax/hopper; a preset brings its own."""
    options: Annotated[EnvironmentOptions, _Flat] = EnvironmentOptions()
    """What besides its name makes the environment."""
    out: Path | None = None
    """Run directory; none is runs/ and the name of the preset or environment, the method and the seed."""
    preset: str | None = None
    """Settings to begin with, by name. Flags beside it override."""
    num_generations: int = 100
    """Generations of the whole run."""
    seed: int = 0
    """Seed of all random numbers."""
    resume: bool = False
    """Goes on with the run that --out holds; begins it where there is none."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""
    tensorboard: bool = False
    """Also writes TensorBoard events into the run directory (needs the extra tensorboard)."""
    wandb: str | None = None
    """Also logs to this project of Weights & Biases (needs the extra wandb)."""
    loop: Annotated[LoopSettings, _Flat] = LoopSettings()
    """The host loop."""

    def __post_init__(self) -> None:
        """Refuses a number of generations that is not positive, and a seed that JAX would take for another."""
        require_positive("num_generations", self.num_generations)
        _require_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class DistillSettings(RunSettings):
    """Distils a behaviour into a few state-action pairs, by HaDES."""

    preset: str | None = None
    """Settings to begin with, by name: cartpole, acrobot, pendulum, mountaincar, hopper, inverted-pendulum, breakout,
    asterix, freeway, spaceinvaders, or paper/NAME-r and paper/NAME-f for the published ones. Flags beside it
    override."""
    settings: Annotated[HadesSettings, _Flat] = HadesSettings()
    """The method."""

    def __post_init__(self) -> None:
        """Refuses also an initialisation seed that JAX would take for another."""
        super().__post_init__()
        if self.settings.init_seed is not None:
            _require_seed("init_seed", self.settings.init_seed)


@dataclass(frozen=True, kw_only=True)
class NeuroevolutionCommandSettings(RunSettings):
    """Evolves the policy's own parameters: neuroevolution, the baseline without a dataset."""

    preset: str | None = None
    """Settings to begin with, by name: cartpole, acrobot, pendulum, mountaincar, hopper, inverted-pendulum,
    breakout, asterix, freeway, spaceinvaders, or paper/NAME for the published ones. Flags beside it override."""
    settings: Annotated[NeuroevolutionSettings, _Flat] = NeuroevolutionSettings()
    """The method."""


@dataclass(frozen=True, kw_only=True)
class PPOCommandSettings(RunSettings):
    """Trains a policy by proximal policy optimisation, the baseline of reinforcement learning."""

    preset: str | None = None
    """Settings to begin with, by name: cartpole, acrobot, pendulum, mountaincar, hopper, halfcheetah,
    inverted-pendulum, breakout, asterix, freeway or spaceinvaders. Flags beside it override."""
    num_generations: int = 100
    """Updates of the whole run."""
    settings: Annotated[PPOSettings, _Flat] = PPOSettings()
    """The method."""

    def __post_init__(self) -> None:
        """Refuses also updates whose learning rate would be zero, unless the run ends by its environment steps."""
        super().__post_init__()
        annealed = self.settings.anneal_updates
        if annealed is not None and self.num_generations > annealed and self.loop.max_env_steps is None:
            raise ValueError(
                f"num_generations: expected at most {annealed}, after which --anneal-updates makes the learning rate "
                f"zero, got {self.num_generations}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a thing is evaluated on fresh keys."""

    num_episodes: int = 8
    """Episodes of each policy."""
    seed: int = 0
    """Seed of the fresh keys."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive, and a seed that JAX would take for another."""
        require_positive("num_episodes", self.num_episodes)
        _require_seed("seed", self.seed)


def _require_seed(name: str, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ValueError(f"{name}: expected an integer from 0 to 4294967295, got {seed}")
