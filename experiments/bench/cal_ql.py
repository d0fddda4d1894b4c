"""`hades bench cal-ql`: Cal-QL against behaviour cloning on offline data of mixed quality."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
import optax

import envs
from experiments import tables
from experiments.bench._lib.base import Bench, Report, SeedsBenchSettings, tell
from experiments.cli import BadArgumentsError
from experiments.settings import Flat
from hades import policies, recipes
from hades._serialization import to_dict
from hades._validation import require_not_negative
from hades.dataset import SyntheticDataset
from hades.distributions import Distribution
from hades.evaluation import Evaluation, evaluate
from hades.inner.cloning import behaviour_cloning
from hades.keys import Stream, stream
from hades.normalization import PolicyParams
from hades.offline.cal_ql import CalQLSettings, make_cal_ql
from hades.offline.collect import Behaviour, collect, uniform_behaviour
from hades.offline.teacher import Layers, teacher_policy
from hades.offline.transitions import Transitions
from hades.policies import Policy
from hades.statistics import mean_interval
from hades.training import LoopSettings, train
from hades.types import Continuous, Environment, PyTree, require_pure

_UNIFORM = "uniform actions"
_CAL_QL, _CLONING = "cal-ql", "behaviour cloning"
_HEADER = ("", "mean return", "95 % t interval", "inits x episodes", "std")
_LOOP = LoopSettings(iterations_per_call=500, log_every=500, evaluate_every=None)

SETTINGS = CalQLSettings(
    actor_hidden_sizes=(64, 64),
    critic_hidden_sizes=(64, 64),
    actor_learning_rate=3e-4,
    critic_learning_rate=1e-3,
    polyak=0.01,
    num_actions=4,
    reward_scale=0.1,
)
"""Settings small and quick enough for minutes of one core; all others are as published."""


@dataclass(frozen=True, kw_only=True)
class CalQLBenchSettings(SeedsBenchSettings):
    """Trains Cal-QL and behaviour cloning on the same offline data of mixed quality, and scores both on fresh keys.

    The data are from PPO after several numbers of updates and from uniform actions. Cloning minimises the mean squared
    error, with the same network and as many updates.
    """

    env: str = "gymnax/Pendulum-v1"
    """Environment with continuous actions."""
    stages: tuple[int, ...] = (0, 8, 12, 16, 20)
    """Updates of PPO after which its policy, with sampled actions, collects a part of the data."""
    stage_episodes: int = 128
    """Episodes of each part, that of uniform actions included."""
    collection_seed: int = 0
    """Seed of the collection."""
    num_updates: int = 6000
    """Updates of Cal-QL, and steps of behaviour cloning."""
    cloning_learning_rate: float = 1e-3
    """Step size of Adam in behaviour cloning."""
    num_episodes: int = 64
    """Fresh episodes that each policy is scored on, with its most probable actions."""
    cal_ql: Annotated[CalQLSettings, Flat] = SETTINGS
    """Cal-QL."""

    def __post_init__(self) -> None:
        """Refuses also counts and rates that are not positive."""
        super().__post_init__()
        self.require_positive("stage_episodes", "num_updates", "cloning_learning_rate", "num_episodes")
        for stage in self.stages:
            require_not_negative("stages", stage)


def measure(settings: CalQLBenchSettings, report: Report) -> None:
    """Collects the data, and trains both methods on them with every seed."""
    env = _make_environment(settings.env)
    parts = collect_parts(settings, env)
    data = Transitions.concatenate(list(parts.values()))
    returns = {name: np.asarray(part.trajectory_returns()) for name, part in parts.items()}
    evaluations, seconds = _compare(settings, env, data)
    methods = {
        name: {
            **tables.summary(evaluation),
            "per_seed": [
                {"mean": float(row.mean()), "ci95": tables.ends(mean_interval(row))} for row in evaluation.returns
            ],
            "seconds": seconds[name],
        }
        for name, evaluation in evaluations.items()
    }
    report.add(
        env=env.name,
        settings=to_dict(settings) | {"out": None},
        num_transitions=data.num_transitions,
        data=[
            {"policy": name, "episodes": len(values), **tables.summary(Evaluation(values[None], 0 * values[None]))}
            for name, values in returns.items()
        ],
        methods=methods,
        intervals_apart=_apart(methods[_CLONING]["ci95"], methods[_CAL_QL]["ci95"]),
    )


def _apart(lower: Sequence[float] | None, upper: Sequence[float] | None) -> bool | None:
    """Whether an interval lies above another; None where one of them is not known."""
    return None if lower is None or upper is None else upper[0] > lower[1]


def _make_environment(name: str) -> Environment:
    try:
        env = require_pure(envs.make(name))
    except ValueError as error:
        raise BadArgumentsError(f"--env: {error}") from None
    if not isinstance(env.action_space, Continuous):
        raise BadArgumentsError(f"--env: expected continuous actions, got {env.action_space}")
    return env


def collect_parts(settings: CalQLBenchSettings, env: Environment) -> dict[str, Transitions]:
    """Parts of the data by the policy that collected them, uniform actions first."""
    key = jax.random.key(settings.collection_seed)
    run = recipes.ppo(
        env,
        num_envs=32,
        num_steps=200,
        num_minibatches=8,
        learning_rate=1e-3,
        gamma=0.95,
        entropy_coefficient=0.0,
        normalize_rewards=True,
    )
    policy = policies.from_settings(env, run.settings.network)
    state, step = jax.jit(run.init)(key), jax.jit(run.step)
    behaviours = {_UNIFORM: uniform_behaviour(env)}
    for stage in sorted(set(settings.stages)):
        while int(state.iteration) < stage:
            state, _ = step(state)
        behaviours[f"PPO after {stage} updates"] = Behaviour(
            policy, run.policy(state).params, action_selection="sample"
        )
    count = settings.stage_episodes * env.max_steps
    return {
        name: collect(stream(key, Stream.TABLE, index), env, [behaviour], count, settings.stage_episodes)
        for index, (name, behaviour) in enumerate(behaviours.items())
    }


def _compare(
    settings: CalQLBenchSettings, env: Environment, data: Transitions
) -> tuple[dict[str, Evaluation], dict[str, float]]:
    """Evaluations `[seeds, episodes]` of policies that both methods trained with each seed, and seconds of training."""
    assert isinstance(env.action_space, Continuous)  # _make_environment has refused it otherwise
    run = recipes.cal_ql_run(data, env.action_space, settings.cal_ql)
    clone = make_clone(settings, env.action_space, data)
    seconds = {_CAL_QL: 0.0, _CLONING: 0.0}
    found: dict[str, list[Evaluation]] = {name: [] for name in seconds}
    for seed in settings.seed_numbers:
        key = jax.random.key(seed)
        started = time.monotonic()
        teacher = train(key, run, settings.num_updates, loop=_LOOP, progress=False).outcome
        seconds[_CAL_QL] += time.monotonic() - started
        started = time.monotonic()
        policy, params = clone(key)
        seconds[_CLONING] += time.monotonic() - started
        # One key for both methods: they play the same episodes.
        report_key = stream(key, Stream.REPORT)
        for name, acting, network in ((_CAL_QL, teacher_policy, teacher), (_CLONING, policy, params)):
            trained = PolicyParams(network)
            found[name].append(evaluate(report_key, env, acting, trained, settings.num_episodes, "mode"))
        scores = ", ".join(f"{name} {evaluations[-1].mean:.4g}" for name, evaluations in found.items())
        tell(f"seed {seed}: {scores}")
    together = {
        name: Evaluation(np.concatenate([one.returns for one in ones]), np.concatenate([one.lengths for one in ones]))
        for name, ones in found.items()
    }
    return together, seconds


def make_clone(
    settings: CalQLBenchSettings, action_space: Continuous, data: Transitions
) -> Callable[[jax.Array], tuple[Policy, PyTree]]:
    """Behaviour cloning of all data with Cal-QL's own actor: its first parameters, normalisation and squashing."""
    algorithm = make_cal_ql(action_space, settings.cal_ql)
    experience = algorithm.prepare(data)
    frame = algorithm.teacher(jax.jit(algorithm.init)(jax.random.key(0), experience))

    def init(key: jax.Array) -> Layers:
        return algorithm.init(key, experience).networks.actor.layers

    def apply(layers: Layers, observations: jax.Array) -> Distribution:
        return dataclasses.replace(frame, actor=layers).policy(observations)

    policy = Policy(init, apply)
    optimizer = optax.adam(settings.cloning_learning_rate)
    fit = jax.jit(behaviour_cloning(policy, optimizer, settings.num_updates, "mse", settings.cal_ql.batch_size))
    pairs = SyntheticDataset(experience.observations, actions=experience.actions)

    def clone(key: jax.Array) -> tuple[Policy, PyTree]:
        # `key` itself is folded, by the run and for the report.
        return policy, jax.block_until_ready(fit(stream(key, Stream.INIT), pairs).network)

    return clone


def render(result: Mapping[str, Any]) -> str:
    """Table of the data and of both methods."""
    named = {f"data, {part['policy']}": part for part in result["data"]} | result["methods"]
    rows = [
        (name, *tables.estimate(entry), tables.counts(entry), f"{entry['std']:.3g}") for name, entry in named.items()
    ]
    title = f"{result['env']}, {result['num_transitions']} transitions of mixed quality"
    apart = {True: "apart", False: "not apart", None: "not known"}[result["intervals_apart"]]
    seconds = result["methods"][_CAL_QL]["seconds"]
    return f"{tables.table(title, _HEADER, rows)}\nintervals {apart}; Cal-QL took {seconds:.0f} s"


BENCH = Bench(CalQLBenchSettings, measure, render)
