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
from experiments.presets import PRESETS, offline
from experiments.registry import INNER_LOOPS, OBJECTIVES, OUTER_LOOPS
from hades._validation import require_positive
from hades.inner.cloning import CloningSettings
from hades.multihost import MultihostSettings
from hades.offline import Transitions, d4rl
from hades.offline.cal_ql import CalQLSettings
from hades.offline.spaces import DataSpaces
from hades.outer import EvolutionSettings, MetaGradientSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.recipes.offline import OfflineSettings
from hades.recipes.policy_gradient import HadesPGSettings
from hades.rl.settings import PPOSettings
from hades.training import LoopSettings

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
        if self.devices is None:
            return None
        if self.devices > jax.device_count():
            raise ValueError(f"devices: expected at most {jax.device_count()}, which JAX has, got {self.devices}")
        return jax.devices()[: self.devices]

    @property
    def keeps_arrays(self) -> bool:
        """Whether a run goes on only with arrays of the same checksum; else they are known by those of their files."""
        return False

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
        chosen = ("--rollout-chunk-size", "--cloning-chunk-size")
        return super().void_flags() | (void.flags(chosen, "beside --tune-chunks") if self.tune_chunks else {})


@dataclass(frozen=True, kw_only=True)
class DistillSettings(PopulationRunSettings):
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

    @property
    def keeps_arrays(self) -> bool:
        """Whether pairs are codes: of other components they would be other pairs."""
        return self.settings.num_codes is not None

    def void_flags(self) -> dict[str, str]:
        """Also those of first pairs that are given, and of codes."""
        found = super().void_flags()
        codes = ("--num-codes", "--codes-seed")
        if self.settings.num_codes is None:
            found |= void.flags(codes[1:], "without --num-codes")
        if self.warm_start is not None:
            statistics = ("--statistics-episodes", "--min-std")
            first = ("--dataset-size", "--init-scale", "--learn-labels", "--no-learn-labels", *codes, *statistics)
            found |= void.flags(first, "beside --warm-start")
        return found


@dataclass(frozen=True, kw_only=True)
class PolicyGradientDistillSettings(RunSettings):
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


@dataclass(frozen=True)
class OfflineMethodSettings(OfflineSettings):
    """Settings of an offline distillation, with the names of its objective and outer loop."""

    objective: Annotated[str, choice(OBJECTIVES)] = "av-pbc"
    """dbc imitates the data; pbc the teacher; av-pbc weighs states by the teacher's action value; sdw- also by inverse
    state density; pbc-mean-weight is pbc times the mean weight of av-pbc, the control; q-pbc asks the teacher's critic
    for the value of the policy's actions, beside pbc."""
    inner: Annotated[str, choice(INNER_LOOPS)] = "cloning"
    """Inner loop that trains a policy on the dataset."""
    outer: Annotated[str, choice(OUTER_LOOPS)] = "meta-gradient"
    """Outer loop, which moves the pairs."""
    evolution: EvolutionSettings = EvolutionSettings()
    """The outer loop by evolution."""
    population_size: int = 64
    """Candidates of an iteration of the evolution."""

    def __post_init__(self) -> None:
        """Refuses also names that are not registered, and a population that is not positive."""
        super().__post_init__()
        require_positive("population_size", self.population_size)
        for name, known in (("objective", OBJECTIVES), ("inner", INNER_LOOPS), ("outer", OUTER_LOOPS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return self.objective


@dataclass(frozen=True, kw_only=True)
class OfflineRunSettings(RunSettings):
    """Settings of every run on offline data."""

    data: Path | None = None
    """HDF5 file of transitions, in D4RL's layout; default: that of the run that is resumed."""
    evaluation: bool = True
    """Whether outcomes are scored in the environment. Without, none is needed: shapes are those of the data."""
    trajectory_steps: int | None = None
    """Steps after which a trajectory of the data is cut off, where the file has no timeouts; default: not at all."""
    action_low: tuple[float, ...] | None = None
    """Lower bounds of actions where no environment has them, one for all or one for each component; default: -1, or
    the smallest of the data where some are below."""
    action_high: tuple[float, ...] | None = None
    """Upper bounds likewise; default: 1, or the largest of the data where some are above."""
    data_checksum: Annotated[str | None, tyro.conf.Suppress] = None
    """Checksum of the data file, so that a run is not resumed on other data."""

    def __post_init__(self) -> None:
        """Refuses also trajectories without steps."""
        super().__post_init__()
        self.require_positive("trajectory_steps")

    def void_flags(self) -> dict[str, str]:
        """Also those of an environment, where none is made."""
        found = super().void_flags()
        if not self.evaluation:
            names = ("--evaluate-every", *void.EVALUATION_FLAGS, *void.ENVIRONMENT_FLAGS)
            found |= void.flags(names, "beside --no-evaluation")
        return found

    def load(self, env: str | None = None) -> Transitions:
        """The data.

        Args:
            env: Name of their environment; the file's own if None.

        Raises:
            OfflineDataError: The file is missing or malformed.
        """
        assert self.data is not None  # commands refuse it otherwise
        return d4rl.load(self.data, env, self.trajectory_steps)

    def spaces(self, transitions: Transitions, name: str, num_actions: int | None = None) -> DataSpaces:
        """Spaces of the data, where nothing simulates their environment; `num_actions` is that of discrete ones.

        Raises:
            ValueError: The bounds that flags give do not suit; the message names the flag.
        """
        try:
            return DataSpaces.of(transitions, name, self.action_low, self.action_high, num_actions)
        except ValueError as error:
            raise ValueError(f"--{str(error).replace('_', '-', 1)}") from None

    def refuse_bounds(self) -> None:
        """Refuses bounds beside those of an environment.

        Raises:
            ValueError: There are some; the message names the flag.
        """
        for name in ("action_low", "action_high", "num_actions"):
            if getattr(self, name, None) is not None:
                raise ValueError(f"--{name.replace('_', '-')}: expected none, as the environment has them")


@dataclass(frozen=True, kw_only=True)
class OfflineDistillSettings(OfflineRunSettings):
    """Condenses an offline dataset into a few state-action pairs, by DBC, PBC, Av-PBC or SDW."""

    preset: Annotated[str | None, preset_flag("offline distill")] = None
    env: str | None = None
    """Environment to evaluate in, such as gymnasium/Hopper-v4; default: the one that the data file names."""
    teacher: Path | None = None
    """Teacher file, or run directory of a teacher, for all objectives but dbc; for pbc also a policy or a baseline;
    default: none."""
    num_iterations: int = 3000
    """Iterations of the whole run."""
    num_actions: int | None = None
    """Number of discrete actions where no environment has it; default: the largest of the data and one more."""
    teacher_checksum: Annotated[str | None, tyro.conf.Suppress] = None
    """Checksum of the teacher file, so that a run is not resumed with another."""
    settings: Annotated[OfflineMethodSettings, Flat] = OfflineMethodSettings()
    """The method."""
    loop: Annotated[LoopSettings, Flat] = offline.LOOP
    """The host loop."""

    def __post_init__(self) -> None:
        """Refuses also a budget of environment steps, of which there are none."""
        super().__post_init__()
        if self.loop.max_env_steps is not None:
            raise ValueError(
                f"max_env_steps: expected none, as training plays in no environment, got {self.loop.max_env_steps}"
            )
        require_annealed(self, self.settings.meta_gradient.anneal_iterations, "meta-gradient.anneal-iterations")
        if self.settings.meta_gradient.max_kl is not None:
            raise ValueError("meta_gradient.max_kl: expected none, as objectives on offline states report no KL")

    def void_flags(self) -> dict[str, str]:
        """Also those of the other outer loop, and of a density that nothing asks for."""
        method = self.settings
        others = ("--meta-gradient.",) if method.outer == "evolution" else ("--evolution.", "--population-size")
        return {
            **super().void_flags(),
            **void.flags(others, f"beside --outer {method.outer}"),
            **void.density_flags(method, OBJECTIVES[method.objective].needs_density),
        }


@dataclass(frozen=True, kw_only=True)
class TeachSettings(OfflineRunSettings):
    """Trains a teacher on offline data by Cal-QL: a policy and its action values, for hades offline distill.

    An --out that ends in .npz is the teacher's file, and the run directory a folder of its name beside it.
    """

    preset: Annotated[str | None, preset_flag("offline teach")] = None
    env: str | None = None
    """Environment of the data, for the bounds of actions and to play in; default: the one that the file names."""
    num_iterations: int = 100_000
    """Updates of the whole training; published teachers took a million."""
    settings: Annotated[CalQLSettings, Flat] = CalQLSettings()
    """The method."""
    loop: Annotated[LoopSettings, Flat] = offline.TEACH_LOOP
    """The host loop."""

    def void_flags(self) -> dict[str, str]:
        """Also those of an environment that neither flags nor data name."""
        unnamed = void.flags(void.ENVIRONMENT_FLAGS, "without --env, as the data name no environment")
        return ({} if self.env is not None else unnamed) | super().void_flags()


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


def require_annealed(settings: RunSettings, annealed: int | None, flag: str) -> None:
    """Refuses more iterations than a learning rate takes to fall to zero, unless the run ends by its steps."""
    if annealed is not None and settings.num_iterations > annealed and settings.loop.max_env_steps is None:
        raise ValueError(
            f"num_iterations: expected at most {annealed}, after which --{flag} makes the learning rate zero, "
            f"got {settings.num_iterations}"
        )
