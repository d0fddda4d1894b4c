"""`hades bench cal-ql`: Cal-QL against behaviour cloning on offline data of mixed quality."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from hades.offline.teaching import TeachingLoop, teach

import envs
from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.bench._lib.runs import parse_seeds
from experiments.cli import BadArgumentsError
from hades import policies, recipes
from hades._serialization import to_dict
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.distributions import Distribution
from hades.evaluation import Evaluation, evaluate
from hades.inner.cloning import behaviour_cloning
from hades.normalization import Normalizer, PolicyParams
from hades.offline.cal_ql import CalQL, CalQLSettings, make_cal_ql
from hades.offline.teacher import Layers, teacher_policy
from hades.offline.transitions import Transitions
from hades.policies import Policy
from hades.rollouts.auto_reset import begin_episodes, make_auto_reset_rollout
from hades.statistics import mean_interval
from hades.types import Continuous, Environment, PyTree, require_pure

_UNIFORM = "uniform actions"
_UPDATES_PER_CALL = 500
# Far from what training draws, and the same for all methods: all of a seed play the same episodes.
_EVALUATION_STREAM = 2**32 - 4

SETTINGS = CalQLSettings(
    actor_hidden_sizes=(64, 64),
    critic_hidden_sizes=(64, 64),
    actor_learning_rate=3e-4,
    critic_learning_rate=1e-3,
    polyak=0.01,
    num_actions=4,
    reward_scale=0.1,
)
"""Small and quick enough for minutes of one core; what is not named is as published."""


@dataclass(frozen=True, kw_only=True)
class CalQLBenchSettings:
    """Trains Cal-QL and behaviour cloning on the same offline data of mixed quality, and scores both on fresh keys.

    The data are from PPO at several stages of its training and from uniform actions. Cloning minimises the mean squared
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
    seeds: str = "0-4"
    """Seeds of training, such as 0-4 or 0,2,5."""
    num_updates: int = 6000
    """Updates of Cal-QL, and steps of behaviour cloning."""
    cloning_learning_rate: float = 1e-3
    """Step size of Adam in behaviour cloning."""
    num_episodes: int = 64
    """Fresh episodes that each policy is scored on, with its most probable actions."""
    cal_ql: Annotated[CalQLSettings, tyro.conf.arg(name="")] = SETTINGS
    """Cal-QL."""
    out: Path | None = None
    """JSON file to write."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses seeds that are none, and counts and rates that are not positive."""
        parse_seeds(self.seeds)
        for name in ("stage_episodes", "num_updates", "cloning_learning_rate", "num_episodes"):
            require_positive(name, getattr(self, name))
        if any(stage < 0 for stage in self.stages):
            raise ValueError(f"stages: expected numbers of at least 0, got {self.stages}")


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(CalQLBenchSettings, "bench cal-ql", arguments)
    try:
        env = require_pure(envs.make(settings.env))
    except ValueError as error:
        raise BadArgumentsError(f"--env: {error}") from None
    if not isinstance(env.action_space, Continuous):
        raise BadArgumentsError(f"--env: expected continuous actions, got {env.action_space}")
    parts = collect(settings, env)
    data = Transitions.concatenate(list(parts.values()))
    returns = {name: np.asarray(part.trajectory_returns()) for name, part in parts.items()}
    cal_ql = make_cal_ql(env.action_space, settings.cal_ql)
    evaluations, seconds = _compare(settings, env, cal_ql, data)
    result = provenance("cal-ql", arguments) | {
        "env": env.name,
        "settings": to_dict(settings) | {"out": None},
        "num_transitions": data.num_transitions,
        "data": [
            {"policy": name, "episodes": len(values), "mean": float(values.mean()), "std": float(values.std())}
            for name, values in returns.items()
        ],
        "methods": {
            name: {**tables.summary(evaluation), "per_seed": _per_seed(evaluation), "seconds": seconds[name]}
            for name, evaluation in evaluations.items()
        },
    }
    ours, theirs = (evaluations[name].ci95 for name in ("cal-ql", "behaviour cloning"))
    result["intervals_apart"] = bool(ours[0] > theirs[1])
    rows = {f"data, {name}": Evaluation(values[None], 0 * values[None]) for name, values in returns.items()}
    print(tables.render(f"{env.name}, {data.num_transitions} transitions of mixed quality", rows | evaluations))
    apart = "apart" if result["intervals_apart"] else "not apart"
    print(f"intervals {apart}; Cal-QL took {seconds['cal-ql']:.0f} s; {shlex.join(result['command'])}")
    deliver(result, settings.out, settings.json)
    return 0


def collect(settings: CalQLBenchSettings, env: Environment) -> dict[str, Transitions]:
    """The parts of the data by the policy that collected them, uniform actions first."""
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
    state, step = jax.jit(run.init)(key), jax.jit(run.step)
    play = _player(env, policies.from_settings(env, run.settings.network), settings.stage_episodes)
    play_uniform = _player(env, policies.uniform(env), settings.stage_episodes)
    # A stream of keys that training does not use.
    part_key = jax.random.fold_in(key, 2**32 - 6)
    parts = {_UNIFORM: play_uniform(part_key, PolicyParams((), Normalizer()))}
    for stage in sorted(set(settings.stages)):
        while int(state.generation) < stage:
            state, _ = step(state)
        params = run.policy(state).params
        parts[f"PPO after {stage} updates"] = play(jax.random.fold_in(part_key, stage), params)
    return parts


def _player(env: Environment, policy: Policy, episodes: int) -> Callable[[jax.Array, PolicyParams], Transitions]:
    """Plays in parallel environments for the steps of a whole episode; shorter ones are begun again meanwhile."""
    assert isinstance(env.action_space, Continuous)
    low, high = jnp.array(env.action_space.low), jnp.array(env.action_space.high)
    collect_steps = make_auto_reset_rollout(env, policy, episodes, env.max_steps)

    @jax.jit
    def play(key: jax.Array, params: PolicyParams) -> Any:
        begin_key, collect_key = jax.random.split(key)
        first = begin_episodes(begin_key, env, episodes)
        _, steps = collect_steps(collect_key, params.network, params.normalizer, first)
        # One episode behind the other; where the steps end one is cut.
        last = jnp.arange(env.max_steps)[:, None] == env.max_steps - 1
        steps = dataclasses.replace(steps, truncated=(steps.truncated | last) & ~steps.terminated)
        return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), steps)

    def transitions(key: jax.Array, params: PolicyParams) -> Transitions:
        steps = play(key, params)
        # What the environment made of the actions.
        actions = jnp.clip(steps.actions, low, high)
        return Transitions(
            steps.observations,
            actions,
            steps.rewards,
            steps.next_observations,
            steps.terminated,
            steps.truncated,
            env.name,
        )

    return transitions


def _compare(
    settings: CalQLBenchSettings, env: Environment, cal_ql: CalQL, data: Transitions
) -> tuple[dict[str, Evaluation], dict[str, float]]:
    """Trains both methods with each seed, and plays with what they learned; evaluations `[seeds, episodes]`."""
    clone = make_clone(settings, cal_ql, data)
    seconds = {"cal-ql": 0.0, "behaviour cloning": 0.0}
    found: dict[str, list[Evaluation]] = {name: [] for name in seconds}
    for seed in parse_seeds(settings.seeds):
        key = jax.random.key(seed)
        started = time.monotonic()
        lesson = teach(key, cal_ql, data, settings.num_updates, loop=TeachingLoop(_UPDATES_PER_CALL))
        seconds["cal-ql"] += time.monotonic() - started
        started = time.monotonic()
        policy, params = clone(key)
        seconds["behaviour cloning"] += time.monotonic() - started
        fresh = jax.random.fold_in(key, _EVALUATION_STREAM)
        played = {"cal-ql": (teacher_policy, lesson.teacher), "behaviour cloning": (policy, params)}
        for name, (policy, params) in played.items():
            score = evaluate(fresh, env, policy, PolicyParams(params, Normalizer()), settings.num_episodes, "mode")
            found[name].append(score)
        scores = ", ".join(f"{name} {evaluations[-1].mean:.4g}" for name, evaluations in found.items())
        print(f"seed {seed}: {scores}", file=sys.stderr, flush=True)
    return {name: _together(evaluations) for name, evaluations in found.items()}, seconds


def _together(evaluations: Sequence[Evaluation]) -> Evaluation:
    returns = np.concatenate([evaluation.returns for evaluation in evaluations])
    return Evaluation(returns, np.concatenate([evaluation.lengths for evaluation in evaluations]))


def make_clone(
    settings: CalQLBenchSettings, cal_ql: CalQL, data: Transitions
) -> Callable[[jax.Array], tuple[Policy, PyTree]]:
    """Behaviour cloning of all data with Cal-QL's own actor: its first parameters, normalisation and squashing."""
    experience = cal_ql.prepare(data)
    frame = cal_ql.teacher(jax.jit(cal_ql.init)(jax.random.key(0), experience))

    def init(key: jax.Array) -> Layers:
        return cal_ql.init(key, experience).networks.actor.layers

    def apply(layers: Layers, observations: jax.Array) -> Distribution:
        return dataclasses.replace(frame, actor=layers).policy(observations)

    policy = Policy(init, apply)
    optimizer = optax.adam(settings.cloning_learning_rate)
    train = jax.jit(behaviour_cloning(policy, optimizer, settings.num_updates, "mse", settings.cal_ql.batch_size))
    pairs = SyntheticDataset(experience.observations, actions=experience.actions)

    def clone(key: jax.Array) -> tuple[Policy, PyTree]:
        return policy, jax.block_until_ready(train(key, pairs).network)

    return clone


def _per_seed(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [{"mean": float(row.mean()), "ci95": tables.ends(mean_interval(row))} for row in evaluation.returns]
