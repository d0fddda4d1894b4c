"""Rollouts outside of JAX: those of the jitted rollout, of raw gymnasium, with ensembles, and clear refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs._noise import quiet_gymnasium
from hades import policies, recipes
from hades.dataset import SyntheticDataset
from hades.distributions import Deterministic
from hades.evaluation import DatasetEvaluator, evaluate
from hades.inner.cloning import behaviour_cloning
from hades.normalization import Normalizer, PolicyParams
from hades.policies import Policy
from hades.rollouts.first_episode import make_rollout
from hades.rollouts.host import compiled_rollout, make_host_recorded_rollout, make_host_rollout
from tests.helpers import OnHost, Walk

KEYS = jax.random.split(jax.random.key(3), 2)


@pytest.mark.parametrize(
    ("action_selection", "normalizer", "group_size"),
    [
        ("sample", Normalizer("fixed", jnp.array([0.5, 0.2]), jnp.array([2.0, 0.5])), None),
        ("mode", Normalizer(), None),
        ("sample", Normalizer("running"), 3),
    ],
    ids=["sample-fixed", "mode", "sample-running-groups"],
)
def test_the_rollout_on_the_host_is_the_jitted_one(action_selection, normalizer, group_size):
    policy = policies.mlp(Walk(), hidden_sizes=(3,), kernel_init="lecun_normal")
    one = jax.lax.map(policy.init, KEYS)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf + 0.1]), one)
    arguments = (policy, 6, action_selection, group_size)
    expected = jax.jit(make_rollout(Walk(), *arguments))(KEYS, params, normalizer)
    found = compiled_rollout(OnHost(), *arguments)(KEYS, params, normalizer)
    assert found.returns.shape == (2, 2, 6)
    np.testing.assert_allclose(found.returns, expected.returns, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    statistics = zip(jax.tree.leaves(found.statistics), jax.tree.leaves(expected.statistics), strict=True)
    for leaf, other in statistics:
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-4)
    if action_selection == "sample":
        assert len(np.unique(found.lengths)) > 2
    again = compiled_rollout(OnHost(), *arguments)(KEYS, params, normalizer)
    np.testing.assert_array_equal(again.returns, found.returns)


def test_only_living_episodes_are_simulated(monkeypatch):
    made = []
    simulate = OnHost.simulate
    monkeypatch.setattr(OnHost, "simulate", lambda env, seeds: made.append(simulate(env, seeds)) or made[-1])
    policy = policies.uniform(OnHost())
    episodes = make_host_rollout(OnHost(), policy, 50)(KEYS, policy.init(KEYS[0]), Normalizer())
    assert made[0].simulated == episodes.lengths.sum() < 2 * 50 * 12


@pytest.mark.parametrize("recorded", [False, True])
def test_a_simulator_is_closed_also_where_play_fails(recorded):
    class Failing(OnHost):
        def simulate(self, seeds):
            made.append(super().simulate(seeds))
            made[0].step = lambda actions: 1 / 0
            return made[0]

    made = []
    if recorded:
        rollout = make_host_recorded_rollout(Failing(), lambda key, params, seen: jnp.zeros((3, 1)), 3)
        arguments = (KEYS[0], (), 3)
    else:
        policy = policies.uniform(Failing())
        rollout, arguments = make_host_rollout(Failing(), policy, 3), (KEYS, policy.init(KEYS[0]), Normalizer())
    with pytest.raises(ZeroDivisionError):
        rollout(*arguments)
    assert not made[0].alive.any()


@pytest.mark.parametrize(("name", "max_steps"), [("Hopper-v4", 1000), ("HalfCheetah-v4", 20)])
def test_returns_in_mujoco_are_those_of_raw_gymnasium(name, max_steps):
    """Hopper falls, HalfCheetah runs into its limit; the seeds are those that the simulator was given."""
    gymnasium = pytest.importorskip("gymnasium", reason="the extra mujoco is not installed")
    env = envs.make(f"gymnasium/{name}", max_steps=max_steps)
    policy = policies.mlp(env, (8,), kernel_init="lecun_normal")
    params = PolicyParams(policy.init(jax.random.key(1)))
    seeds = []

    class Recorded(type(env)):
        def simulate(self, given):
            seeds.extend(given)
            return super().simulate(given)

    recorded = Recorded(**{field: getattr(env, field) for field in env.__dataclass_fields__})
    found = evaluate(jax.random.key(0), recorded, policy, params, 3, "mode")
    assert len(set(seeds)) == 3
    act = jax.jit(lambda observations: policy.apply(params.network, observations).mode())
    with quiet_gymnasium():
        raw = gymnasium.make(name, max_episode_steps=max_steps)
    for index, seed in enumerate(seeds):
        observation, _ = raw.reset(seed=int(seed))
        total, length, over = 0.0, 0, False
        while not over:
            batch = np.broadcast_to(np.float32(observation), (1, 1, 1, 3, *env.observation_shape))
            action = np.clip(np.asarray(act(batch))[0, 0, 0, 0], raw.action_space.low, raw.action_space.high)
            observation, reward, terminated, truncated, _ = raw.step(action)
            total, length, over = total + reward, length + 1, terminated or truncated
        assert (found.lengths[0, index], terminated) == (length, name == "Hopper-v4")
        # The policy is compiled twice, in batches of other shapes: actions agree to the last bit but one.
        np.testing.assert_allclose(found.returns[0, index], total, rtol=1e-3)


@pytest.mark.parametrize("env", [Walk(), OnHost()], ids=["jitted", "host"])
def test_ensembles_act_by_the_mean_of_their_members(env):
    """Members that always do the same: the return is that of the mean action, whichever way actions are chosen."""
    constant = Policy(
        lambda key: jax.random.uniform(key, (1,)),
        lambda params, seen: Deterministic(jnp.broadcast_to(params, (*seen.shape[:-1], 1))),
    )
    group = policies.ensemble(constant, 3)
    assert group.init(KEYS[0]).shape == (3, 1) and len(np.unique(group.init(KEYS[0]))) == 3
    params = jnp.array([[[[0.1], [0.4], [1.0]], [[-0.6], [-0.9], [-0.9]]]])
    episodes = compiled_rollout(env, group, 2, "sample")(KEYS, params, Normalizer())
    # Means 0.5 and -0.8: positions of 0.5, 1, ... up to 2.5, and of -0.8, -1.6, -2.4.
    np.testing.assert_allclose(episodes.returns[0, :, 0], [7.5, -4.8], rtol=1e-5)
    np.testing.assert_array_equal(episodes.lengths[0, :, 0], [5, 3])


def test_ensembles_of_discrete_actions_average_probabilities():
    env = envs.make("diagnostic/match", num_actions=3)
    group = policies.ensemble(policies.mlp(env, ()), 2)
    params = group.init(KEYS[0])
    logits = jnp.log(jnp.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]]))
    params["head"] = {"kernel": jnp.zeros_like(params["head"]["kernel"]), "bias": logits}
    distribution = group.apply(params, jnp.zeros((4, *env.observation_shape)))
    np.testing.assert_allclose(jnp.exp(distribution.log_probs()), np.tile([0.5, 0.4, 0.1], (4, 1)), rtol=1e-5)


def test_evaluators_train_the_members_of_ensembles_and_play_the_same_episodes():
    pairs = SyntheticDataset(jnp.array([[0.0, 0.0], [1.0, 0.5]]), actions=jnp.array([[0.3], [-0.2]]))
    clone = behaviour_cloning(policies.mlp(Walk(), (3,), kernel_init="lecun_normal"), num_steps=3)
    alone = DatasetEvaluator(OnHost(), clone, 6, 2, "mode")
    together = DatasetEvaluator(OnHost(), clone, 2, 2, "mode", ensemble=3)
    key = jax.random.key(8)
    members = alone.train(key, pairs)
    grouped = together.train(key, pairs)
    jax.tree.map(lambda one, group: np.testing.assert_array_equal(one.reshape(group.shape), group), members, grouped)
    evaluation = together(key, pairs)
    assert evaluation.returns.shape == (2, 2)
    assert not np.isin(evaluation.returns, alone(key, pairs).returns).any()
    assert together.untrained(key, Normalizer()).returns.shape == (2, 2)
    with pytest.raises(ValueError, match="ensemble: expected 1 for a dataset of one initialisation, got 3"):
        DatasetEvaluator(OnHost(), clone, 2, 2, init_seed=0, ensemble=3)


def test_what_needs_pure_functions_refuses_the_host_in_a_sentence():
    refusals = [
        lambda: make_rollout(OnHost(), policies.uniform(OnHost()), 2),
        lambda: recipes.hades_r(OnHost(), dataset_size=2, population_size=8),
        lambda: recipes.neuroevolution(OnHost(), population_size=8),
        lambda: recipes.ppo(OnHost(), num_envs=4, num_steps=8),
        lambda: recipes.measure_statistics(KEYS[0], OnHost(), 4),
    ]
    for refused in refusals:
        with pytest.raises(ValueError, match="env: expected an environment of pure functions.*got test/walk-on-host"):
            refused()
