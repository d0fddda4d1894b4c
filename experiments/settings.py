"""Settings of the commands: dataclasses that tyro turns into flags, and whose docstrings are the help."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import void
from experiments.environments import EnvironmentOptions
from experiments.precision import MatmulPrecision
from experiments.presets import PRESETS
from hades._validation import require_positive
from hades.inner.cloning import CloningSettings
from hades.multihost import MultihostSettings
from hades.outer import MetaGradientSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.recipes.policy_gradient import HadesPGSettings
from hades.rl.settings import PPOSettings
from hades.training import LoopSettings
from hades.tuning import CHUNK_FIELDS

Flat = tyro.conf.arg(name="")
"""Marks nested settings whose flags have no prefix."""


def preset_flag(command: str) -> Any:
    """The help of `--preset`, with the names of a command's presets."""
    names = ", ".join(PRESETS[command])
    return tyro.conf.arg(help=f"Settings to begin with, default: none. Flags beside it override. Names: {names}.")


def choice(names: Iterable[str]) -> Any:
    """The value of a flag that is one of some names."""
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}")


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Settings of every verb."""

    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def require_positive(self, *names: str) -> None:
        """Refuses fields, or members of tuples in them, that are not above 0; None passes.

        Raises:
            ValueError: One is not; the message names the field.
        """
        for name in names:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None:
                    require_positive(name, number)


@dataclass(frozen=True, kw_only=True)
class SeededSettings(OutputSettings):
    """Settings of every verb that draws random numbers."""

    seed: int = 0
    """Seed of all random numbers, from 0 to 4294967295."""

    def __post_init__(self) -> None:
        """Refuses a seed that JAX would take for another."""
        _require_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class RunSettings(SeededSettings):
    """Settings of every run, whatever its method."""

    env: str | None = None
    """Environment, such as gymnax/CartPole-v1 or brax/hopper; default: that of the preset."""
    options: Annotated[EnvironmentOptions, Flat] = EnvironmentOptions()
    """Options of the environment."""
    out: Path | None = None
    """Run directory; default: runs/ and the name of the preset or environment, the method and the seed."""
    preset: str | None = None
    """Settings to begin with, by name; default: none. Flags beside it override."""
    num_iterations: int = 100
    """Iterations of the whole run."""
    resume: bool = False
    """Resumes the run in --out, or starts it where there is none."""
    tensorboard: bool = False
    """Also writes TensorBoard events into the run directory (needs the extra tensorboard)."""
    wandb: str | None = None
    """Also logs to this project of Weights & Biases (needs the extra wandb); default: not."""
    devices: int | None = None
    """Devices that the work is spread over, the first of those that JAX has; default: all, where the method divides. A
    CPU is made as many, by default one for each core where populations are evaluated."""
    hosts: Annotated[MultihostSettings, Flat] = MultihostSettings()
    """Processes of the run."""
    matmul_precision: MatmulPrecision | None = None
    """Precision of the operands of matrix products and convolutions, those of physics, too; default: that of JAX, TF32
    on GPUs of NVIDIA. GPUs round no further than to TF32; CPUs round operands, which shows the effect and saves no
    time."""
    loop: Annotated[LoopSettings, Flat] = LoopSettings()
    """The host loop."""

    def __post_init__(self) -> None:
        """Refuses also a number of iterations, or of devices, that is not positive."""
        super().__post_init__()
        self.require_positive("num_iterations", "devices")
        if self.devices is not None and self.hosts.multihost:
            raise ValueError(f"devices: expected none beside multihost, as processes share all, got {self.devices}")

    @property
    def chosen_devices(self) -> list[jax.Device] | None:
        """The devices that the flags name, None where they name none.

        Raises:
            ValueError: JAX has fewer.
        """
        return None if self.devices is None else first_devices(self.devices)

    def void_flags(self) -> dict[str, str]:
        """Flags that others make void, with what does, as `experiments.void.refuse_void` takes them."""
        evaluates = self.loop.evaluate_every is not None
        found = {} if evaluates else void.flags(void.EVALUATION_FLAGS, "without --evaluate-every")
        method = getattr(self, "settings", None)
        for prefix in ("cloning", "meta_gradient"):
            optimized = getattr(method, prefix, None)
            if isinstance(optimized, CloningSettings | MetaGradientSettings):
                found |= void.optimizer_flags(prefix.replace("_", "-"), optimized)
        return found


@dataclass(frozen=True, kw_only=True)
class PopulationRunSettings(RunSettings):
    """Settings of every run whose candidates are evaluated in chunks."""

    tune_chunks: bool = False
    """Chooses the sizes of chunks, of rollouts and where there is one of cloning, before the run begins: the quickest
    first iteration that fits the memory. The choice is remembered for the device, beside what JAX compiled, and is a
    setting of the run."""

    def void_flags(self) -> dict[str, str]:
        """Also the sizes of chunks that are chosen."""
        chosen = tuple(f"--{name.replace('_', '-')}" for name in CHUNK_FIELDS)
        return super().void_flags() | (void.flags(chosen, "beside --tune-chunks") if self.tune_chunks else {})


@dataclass(frozen=True, kw_only=True)
class StatisticsSettings(RunSettings):
    """Settings of every run whose observation statistics may be given."""

    statistics_of: Path | None = None
    """Dataset file, zoo:NAME, or run directory: half of the fixed observation statistics is measured on policies that
    it trains. For policies that come to states which random play never sees; default: random play alone."""
    statistics_of_checksum: Annotated[str | None, tyro.conf.Suppress] = None
    """Checksum of that file, so that a run is not resumed with another."""

    def __post_init__(self) -> None:
        """Refuses also statistics that are given to a run of none, or of running ones."""
        super().__post_init__()
        kind = self.settings.observation_normalization  # type: ignore[attr-defined]
        if self.statistics_of is not None and kind != "fixed":
            raise ValueError(
                f"statistics_of: expected none beside observation_normalization {kind}, got {self.statistics_of}"
            )


@dataclass(frozen=True, kw_only=True)
class DistillSettings(StatisticsSettings, PopulationRunSettings):
    """Distils a behaviour into a few state-action pairs, by HaDES.

    Flags and presets of policy gradients: hades distill --method hades-pg --help.
    """

    preset: Annotated[str | None, preset_flag("distill")] = None
    warm_start: Path | None = None
    """Dataset file, zoo:NAME, or run directory whose pairs are the first ones, with labels of discrete actions that are
    learned; default: none, pairs begin by --init-scale."""
    warm_start_checksum: Annotated[str | None, tyro.conf.Suppress] = None
    """Checksum of the file of the first pairs, so that a run is not resumed with another."""
    settings: Annotated[HadesSettings, Flat] = HadesSettings()
    """The method."""

    def __post_init__(self) -> None:
        """Refuses also an initialisation seed that JAX would take for another."""
        super().__post_init__()
        _require_seed("codes_seed", self.settings.codes_seed)
        if self.settings.init_seed is not None:
            _require_seed("init_seed", self.settings.init_seed)

    def void_flags(self) -> dict[str, str]:
        """Also those of first pairs that are given, and of codes."""
        found = super().void_flags()
        codes = ("--num-codes", "--codes-seed")
        if self.settings.num_codes is None:
            found |= void.flags(codes[1:], "without --num-codes")
        else:
            # Components are of random play, behind its own statistics.
            found |= void.flags(("--statistics-of",), "beside --num-codes")
        if self.warm_start is not None:
            statistics = ("--statistics-episodes", "--min-std", "--statistics-of")
            first = ("--dataset-size", "--init-scale", "--learn-labels", "--no-learn-labels", *codes, *statistics)
            found |= void.flags(first, "beside --warm-start")
        return found


@dataclass(frozen=True, kw_only=True)
class PolicyGradientDistillSettings(StatisticsSettings):
    """Distils a behaviour into a few state-action pairs, by policy gradients through the training of policies."""

    preset: Annotated[str | None, preset_flag("distill hades-pg")] = None
    settings: Annotated[HadesPGSettings, Flat] = HadesPGSettings()
    """The method."""

    def __post_init__(self) -> None:
        """Refuses also an initialisation seed that JAX would take for another, and iterations without a step size."""
        super().__post_init__()
        if self.settings.init_seed is not None:
            _require_seed("init_seed", self.settings.init_seed)
        require_annealed(self, self.settings.meta_gradient.anneal_iterations, "meta-gradient.anneal-iterations")

    def void_flags(self) -> dict[str, str]:
        """Also those of learned step sizes."""
        found = super().void_flags()
        if self.settings.cloning.step_sizes == "fixed":
            found |= void.flags(("--first-step-size", "--step-size-bound"), "without --cloning.step-sizes learned")
        return found


@dataclass(frozen=True, kw_only=True)
class NeuroevolutionCommandSettings(PopulationRunSettings):
    """Evolves the policy's own parameters: neuroevolution, the baseline without a dataset."""

    preset: Annotated[str | None, preset_flag("baseline es")] = None
    settings: Annotated[NeuroevolutionSettings, Flat] = NeuroevolutionSettings()
    """The method."""


@dataclass(frozen=True, kw_only=True)
class PPOCommandSettings(RunSettings):
    """Trains a policy by proximal policy optimisation, the baseline of reinforcement learning."""

    preset: Annotated[str | None, preset_flag("baseline ppo")] = None
    settings: Annotated[PPOSettings, Flat] = PPOSettings()
    """The method."""

    def __post_init__(self) -> None:
        """Refuses also updates whose learning rate would be zero, unless the run ends by its environment steps."""
        super().__post_init__()
        require_annealed(self, self.settings.anneal_updates, "anneal-updates")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(SeededSettings):
    """Settings of an evaluation on fresh keys."""

    num_episodes: int = 8
    """Episodes of each policy."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive."""
        super().__post_init__()
        self.require_positive("num_episodes")


def _require_seed(name: str, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ValueError(f"{name}: expected an integer from 0 to 4294967295, got {seed}")


def first_devices(count: int) -> list[jax.Device]:
    """The first devices of JAX.

    Raises:
        ValueError: It has fewer.
    """
    if count > jax.device_count():
        raise ValueError(f"devices: expected at most {jax.device_count()}, which JAX has, got {count}")
    return jax.devices()[:count]


def require_annealed(settings: RunSettings, annealed: int | None, flag: str) -> None:
    """Refuses more iterations than a learning rate takes to fall to zero, unless the run ends by its steps."""
    if annealed is not None and settings.num_iterations > annealed and settings.loop.max_env_steps is None:
        raise ValueError(
            f"num_iterations: expected at most {annealed}, after which --{flag} makes the learning rate zero, "
            f"got {settings.num_iterations}"
        )
