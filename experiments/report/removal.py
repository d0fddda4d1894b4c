"""The price of each pair: policies trained without it, and where in an episode they would act otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.report.playing import Actors, Performance
from hades.dataset import SyntheticDataset
from hades.statistics import mean_interval
from hades.types import Continuous, Params


@dataclass(frozen=True)
class Removals:
    """Pairs that were removed, one at a time.

    Attributes:
        pairs: Their numbers, `[removed]`.
        costs: Return with all pairs less that without each one, of the same initialisations and first states,
            `[removed, inits]`.
        influence: How far the action at each visited state is from that of a policy trained without the pair,
            `[removed, time]`, see `_distance`.
    """

    pairs: np.ndarray
    costs: np.ndarray
    influence: np.ndarray

    @property
    def acting(self) -> np.ndarray:
        """The pair of the largest influence at each visited state, `[time]`; -1 where none has any."""
        return np.where(self.influence.max(axis=0) > 0, self.pairs[self.influence.argmax(axis=0)], -1)

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON: mean cost of each pair with its 95 % interval, and the share of states where it acts."""
        intervals = [mean_interval(cost) if len(cost) > 1 else (np.nan, np.nan) for cost in self.costs]
        return {
            "pairs": self.pairs.tolist(),
            "costs": [
                {"pair": int(pair), "mean": float(cost.mean()), "low": float(low), "high": float(high)}
                for pair, cost, (low, high) in zip(self.pairs, self.costs, intervals, strict=True)
            ],
            "shares": [float(np.mean(self.acting == pair)) for pair in self.pairs],
        }


def remove_pairs(
    actors: Actors,
    dataset: SyntheticDataset,
    whole: Performance,
    order: Sequence[int],
    max_seconds: float,
    on_pair: Callable[[int], None] = lambda count: None,
) -> Removals | None:
    """Trains policies without each of some pairs, from the same initialisations, and plays with them.

    Args:
        actors: Policies that the whole dataset trained.
        dataset: The dataset, of two pairs or more.
        whole: What they did.
        order: Pairs to remove, the first first.
        max_seconds: Seconds after which no further pair is removed.
        on_pair: Called with the number of pairs that are done.

    Returns:
        Removed pairs in ascending order; None where `order` has none.
    """
    assert actors.train is not None
    assert whole.episode is not None
    rows: list[tuple[int, np.ndarray, np.ndarray]] = []
    distance = _make_distance(actors, whole.episode.observations)
    began = finished = time.monotonic()
    one_more = 0.0
    for pair in order:
        if finished - began + one_more > max_seconds:
            break
        networks = actors.train(without_pair(dataset, pair))
        cost = np.subtract(whole.evaluation.per_init, actors.play(networks).evaluation.per_init)
        rows.append((pair, cost, distance(networks)))
        before, finished = finished, time.monotonic()
        # The first one compiles, and does not tell what the next will take.
        one_more = finished - before if len(rows) > 1 else 0.0
        on_pair(len(rows))
    if not rows:
        return None
    pairs, costs, influence = (np.array(column) for column in zip(*sorted(rows, key=lambda row: row[0]), strict=True))
    return Removals(pairs, costs, influence)


def without_pair(dataset: SyntheticDataset, pair: int) -> SyntheticDataset:
    """The dataset without one of its pairs, statistics and learned step sizes as they are."""
    pairs = jax.tree.map(lambda leaf: jnp.delete(leaf, pair, axis=0), dataset.pairs())
    return replace(
        dataset,
        observations=pairs.observations,
        actions=pairs.actions,
        action_probabilities=pairs.action_probabilities,
        metadata=None,
    )


def _make_distance(actors: Actors, observations: np.ndarray) -> Callable[[Params], np.ndarray]:
    """Makes the function that compares networks with those of `actors`, the first of each, `[time]`.

    It is the total variation between distributions over discrete actions; of continuous ones the root mean square
    difference between modes, in halves of the action range.
    """
    seen = actors.normalizer.apply(jnp.asarray(observations))
    space = actors.env.action_space

    @jax.jit
    def actions(networks: Params) -> jax.Array:
        distribution: Any = actors.policy.apply(jax.tree.map(lambda leaf: leaf[0], networks), seen)
        return distribution.mode() if isinstance(space, Continuous) else jnp.exp(distribution.log_probs())

    of_all = np.asarray(actions(actors.networks))

    def distance(networks: Params) -> np.ndarray:
        difference = np.nan_to_num(np.asarray(actions(networks)) - of_all)
        if not isinstance(space, Continuous):
            return 0.5 * np.abs(difference).sum(axis=-1)
        halves = 0.5 * (np.asarray(space.high) - np.asarray(space.low))
        return np.sqrt(np.mean(np.square(difference / halves), axis=-1))

    return distance
