"""Settings of the commands on offline data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments import void
from experiments.presets import offline
from experiments.registry import INNER_LOOPS, OBJECTIVES, OUTER_LOOPS
from experiments.settings import Flat, RunSettings, choice, preset_flag, require_annealed
from hades._validation import require_positive
from hades.offline import Transitions, d4rl
from hades.offline.cal_ql import CalQLSettings
from hades.offline.spaces import DataSpaces
from hades.outer import EvolutionSettings
from hades.recipes.offline import OfflineSettings
from hades.training import LoopSettings


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
        """Refuses also trajectories without steps, and a budget of environment steps, of which there are none."""
        super().__post_init__()
        self.require_positive("trajectory_steps")
        if self.loop.max_env_steps is not None:
            raise ValueError(
                f"max_env_steps: expected none, as training plays in no environment, got {self.loop.max_env_steps}"
            )

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
        """Refuses also what meta-gradients on offline states do not have."""
        super().__post_init__()
        require_annealed(self, self.settings.meta_gradient.anneal_iterations, "meta-gradient.anneal-iterations")
        if self.settings.meta_gradient.max_kl is not None:
            raise ValueError("meta_gradient.max_kl: expected none, as objectives on offline states report no KL")

    def void_flags(self) -> dict[str, str]:
        """Also those of the other outer loop, of a density that nothing asks for, and of a place to score in."""
        method = self.settings
        others = ("--meta-gradient.",) if method.outer == "evolution" else ("--evolution.", "--population-size")
        return {
            **super().void_flags(),
            **({} if self.evaluation else void.flags(("--env",), "beside --no-evaluation")),
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
