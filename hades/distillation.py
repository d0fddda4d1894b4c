"""The one place that puts the four parts of a method together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from typing_extensions import override

from hades import fitness, multihost
from hades._environment_contract import conform
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, PolicyEvaluator
from hades.fitness import Chunks, Draw, FitnessFunction, IterationValue, PresentPolicies
from hades.inner.described import settings_of
from hades.keys import Stream, iteration_key, stream
from hades.metadata import EvaluationSummary, FileMetadata, package_versions
from hades.normalization import Normalization, PolicyParams
from hades.parametrizations import references_of, with_statistics
from hades.policies import PolicySpaces
from hades.policy_file import TrainedPolicy
from hades.rollouts.settings import PlaySettings
from hades.run import Run, RunState
from hades.sharding import (
    INITS_AXIS,
    Devices,
    MeshOrDevices,
    divided_mesh,
    population_mesh,
    replicate_within,
    spans_several,
)
from hades.types import AnyEnvironment, InnerLoop, Metrics, Objective, OuterLoop, Parametrization, Params


def distillation_run(
    env: AnyEnvironment,
    parametrization: Parametrization,
    inner: InnerLoop,
    objective: Objective,
    outer: OuterLoop,
    *,
    num_inits: int = 1,
    init_seed: int | None = None,
    evaluation_inner: InnerLoop | None = None,
    selection_env: AnyEnvironment | None = None,
    play: PlaySettings | None = None,
    normalization_envs: int | None = None,
    chunks: Chunks | None = None,
    mesh: MeshOrDevices | None = None,
    method: str = "by hand",
    settings: Any = None,
) -> Run[Any]:
    """Puts the four parts of a method together: the outer loop climbs F(D) = E_k[J(A_T(theta_0(k), D), k)].

    Args:
        env: Environment that outcomes are evaluated in, with the spaces of the policies.
        parametrization: Solutions, and the dataset (or the parameters of a policy) that each stands for.
        inner: A, with the policy and its initialisation theta_0.
        objective: J, which is maximised.
        outer: Climbs F.
        num_inits: Initialisations that each candidate trains, shared by all candidates of an iteration.
        init_seed: Seed of the one initialisation of all iterations (HaDES-F); fresh ones every iteration if None.
        evaluation_inner: Trains the policies that are evaluated, and is described in files; `inner` if None.
        selection_env: Environment that the best outcome is chosen in, where the one that it is reported in must have no
            part in the choice, such as test images; `env` if None.
        play: Normalisation and choice of actions of evaluated policies; those of `objective.settings` where it has
            them, otherwise samples.
        normalization_envs: With running normalisation, episodes that share statistics; those of
            `objective.normalization_envs` where it says so, otherwise all of a policy's.
        chunks: Candidates that exist at once; all of them if None.
        mesh: Devices that candidates and inits are spread over, its axes `population` and perhaps `inits`, or devices
            to divide among both; all that JAX has if None.
        method: Name of the method in files.
        settings: Settings that a run directory keeps and compares; None for a run by hand.

    Returns:
        A run whose outcome is a dataset, or a policy where `parametrization.decode` gives parameters.

    Raises:
        ValueError: A number is not positive.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> inner = hades.behaviour_cloning(hades.policies.mlp(env), num_steps=5)
        >>> run = distillation_run(
        ...     env,
        ...     hades.parametrizations.free_pairs(env, dataset_size=3),
        ...     inner,
        ...     hades.objectives.EpisodicReturn(env, inner.policy),
        ...     hades.outer.Evolution(population_size=8),
        ... )
        >>> result = hades.distill(jax.random.key(0), run, num_iterations=2, progress=False)
        >>> result.dataset.num_pairs
        3
    """
    env = conform(env)
    require_positive("num_inits", num_inits)
    own_play, own_groups = _played_by(objective)
    decoded = jax.eval_shape(lambda key: parametrization.decode(parametrization.init(key)), jax.random.key(0))
    build = DatasetRun if isinstance(decoded, SyntheticDataset) else PolicyRun
    return build(
        method=method,
        env=env,
        settings=settings,
        mesh=_mesh(mesh, outer, num_inits),
        parametrization=parametrization,
        inner=inner,
        objective=objective,
        outer=outer,
        num_inits=num_inits,
        init_seed=init_seed,
        chunks=chunks or Chunks(),
        evaluation_inner=evaluation_inner or inner,
        selection_env=None if selection_env is None else conform(selection_env),
        play=play or own_play,
        normalization_envs=own_groups if normalization_envs is None else normalization_envs,
    )


def _played_by(objective: Objective) -> tuple[PlaySettings, int | None]:
    """Settings and groups that an objective plays by, where it says so; fields of those names may be anything else."""
    play, groups = getattr(objective, "settings", None), getattr(objective, "normalization_envs", None)
    return (
        play if isinstance(play, PlaySettings) else PlaySettings(observation_normalization="none"),
        groups if isinstance(groups, int) else None,
    )


def _mesh(mesh: MeshOrDevices | None, outer: OuterLoop, num_inits: int) -> Mesh:
    """The mesh of a run, divided where devices are not yet."""
    if not isinstance(mesh, Mesh):
        population = getattr(outer, "population_size", None)
        # Of a loop that does not say how many candidates it has, devices share these.
        return population_mesh(mesh) if population is None else divided_mesh(population, num_inits, mesh)
    idle = set(range(jax.process_count())) - {device.process_index for device in mesh.devices.flat}
    if idle and multihost.are_several():
        raise ValueError(f"mesh: expected devices of every process, got none of process {min(idle)}")
    columns = mesh.shape.get(INITS_AXIS, 1)
    if num_inits % columns:
        raise ValueError(f"mesh: expected an axis inits that divides {num_inits} initialisations, got {columns}")
    return mesh


@dataclass(frozen=True, eq=False)
class _FourParts(Run[Any]):
    """A choice of the four parts, and how its outcome is evaluated and described. Fields as of `distillation_run`."""

    method: str
    env: AnyEnvironment
    settings: Any
    mesh: Mesh
    parametrization: Parametrization
    inner: InnerLoop
    objective: Objective
    outer: OuterLoop
    num_inits: int
    init_seed: int | None
    chunks: Chunks
    evaluation_inner: InnerLoop
    selection_env: AnyEnvironment | None
    play: PlaySettings
    normalization_envs: int | None

    @override
    def init(self, key: jax.Array) -> RunState:
        outer_key, solution_key, objective_key = jax.random.split(stream(key, Stream.INIT), 3)
        outer = self.outer.init(outer_key, self.parametrization.init(solution_key))
        return RunState(key, jnp.int32(0), outer, self.objective.init(objective_key))

    @override
    def step(self, state: RunState) -> tuple[RunState, Metrics]:
        outer_key, value_key = jax.random.split(iteration_key(state.key, state.iteration))
        draw, objective, drawn = self._draw(value_key, state)
        value = IterationValue(self._fitness, draw, Devices(self.mesh))
        outer, metrics = self.outer.step(outer_key, state.outer, value)
        non_finite = metrics["non_finite"] + drawn.get("non_finite", 0)
        metrics = {**metrics, **drawn, "non_finite": non_finite}
        # Placed as it came, so that the next call finds the program of this one.
        return replicate_within(RunState(state.key, state.iteration + 1, outer, objective), self.mesh), metrics

    def _draw(self, key: jax.Array, state: RunState) -> tuple[Draw, Any, Metrics]:
        """Random numbers of one iteration, the objective's new state, and the metrics of its draw."""
        init_key, objective_key = jax.random.split(key)
        draw = fitness.draw_inits(self.inner, init_key, self.num_inits, self.init_seed)

        def train() -> Params:
            # Of an average, the gradient is taken elsewhere.
            position = getattr(self.outer, "position", self.outer.solution)
            dataset = jax.tree.map(lambda leaf: leaf[None], self.parametrization.decode(position(state.outer)))
            return jax.tree.map(lambda leaf: leaf[0], fitness.fit_over(Devices(self.mesh), self.inner, draw, dataset))

        policies = PresentPolicies(self.num_inits, train, Devices(self.mesh))
        problem, objective, metrics = self.objective.draw(objective_key, state.objective, policies)
        return dataclasses.replace(draw, problem=problem), objective, metrics

    @property
    def _fitness(self) -> FitnessFunction:
        formula = fitness.make_fitness(self.parametrization, self.inner, self.objective)
        return fitness.in_chunks(formula, self.chunks)

    @property
    def _evaluation_mesh(self) -> Mesh | None:
        """Devices of evaluations; None for one, whose programs are then those of any evaluation."""
        return self.mesh if spans_several(self.mesh) else None

    def _decoded(self, state: RunState) -> Any:
        return self.parametrization.decode(self.outer.solution(state.outer))

    def _metadata(self, normalization: Normalization, seed: int, evaluation: EvaluationSummary | None) -> FileMetadata:
        return FileMetadata(
            env=self.env.name,
            env_options=self.env.options,
            max_episode_steps=self.env.max_steps,
            method=self.method,
            observation_normalization=normalization,
            action_selection=self.play.action_selection,
            init_seed=self.init_seed,
            cloning=settings_of(self.evaluation_inner, self.env),
            evaluation=evaluation,
            created_with=package_versions(self.env.name),
            seed=seed,
        )


@dataclass(frozen=True, eq=False)
class DatasetRun(_FourParts):
    """Distillation of a dataset, made by `distillation_run`."""

    kind: ClassVar[str] = "dataset"

    @override
    def outcome(self, state: RunState) -> SyntheticDataset:
        normalizer = self.objective.normalizer(state.objective)
        return with_statistics(cast(SyntheticDataset, self._decoded(state)), normalizer.mean, normalizer.std)

    @override
    def describe(
        self, outcome: SyntheticDataset, seed: int, evaluation: EvaluationSummary | None = None
    ) -> SyntheticDataset:
        metadata = self._metadata(outcome.normalizer(self._bare_normalization).kind, seed, evaluation)
        return dataclasses.replace(outcome, metadata=metadata)

    @override
    def make_evaluator(self, num_inits: int, num_episodes: int) -> DatasetEvaluator:
        return self._make_evaluator(self.env, num_inits, num_episodes)

    @override
    def make_selector(self, num_inits: int, num_episodes: int) -> DatasetEvaluator:
        return self._make_evaluator(self.selection_env or self.env, num_inits, num_episodes)

    def _make_evaluator(self, env: AnyEnvironment, num_inits: int, num_episodes: int) -> DatasetEvaluator:
        return DatasetEvaluator(
            env,
            self.evaluation_inner,
            num_inits,
            num_episodes,
            self.play.action_selection,
            self.normalization_envs,
            self.init_seed,
            more_references=self.references,
            mesh=self._evaluation_mesh,
            observation_normalization=self._bare_normalization,
        )

    @property
    def _bare_normalization(self) -> Normalization:
        """Normalisation of datasets that hold no statistics."""
        return "running" if self.play.observation_normalization == "running" else "none"

    def references(self, key: jax.Array) -> dict[str, SyntheticDataset]:
        """Datasets to compare with that the parametrisation knows, by name, such as random real pairs; often none."""
        found = references_of(self.parametrization, key)
        if not found:
            return {}
        normalizer = self.objective.normalizer(self.objective.init(key))
        return {name: with_statistics(pairs, normalizer.mean, normalizer.std) for name, pairs in found.items()}


@dataclass(frozen=True, eq=False)
class PolicyRun(_FourParts):
    """Evolution of a policy's own parameters, made by `distillation_run`."""

    kind: ClassVar[str] = "policy"

    @override
    def outcome(self, state: RunState) -> TrainedPolicy:
        return TrainedPolicy(PolicyParams(self._decoded(state), self.objective.normalizer(state.objective)))

    @override
    def describe(self, outcome: TrainedPolicy, seed: int, evaluation: EvaluationSummary | None = None) -> TrainedPolicy:
        metadata = self._metadata(outcome.params.normalizer.kind, seed, evaluation)
        return dataclasses.replace(outcome, metadata=metadata, spaces=PolicySpaces.of(self.env))

    @override
    def make_evaluator(self, num_inits: int, num_episodes: int) -> PolicyEvaluator:
        return PolicyEvaluator(
            self.env,
            self.evaluation_inner.policy,
            num_inits,
            num_episodes,
            self.play.action_selection,
            self.normalization_envs,
            self._evaluation_mesh,
        )
