"""Rollouts: exact returns, masks, ends, shared random numbers, statistics, and nothing stacked over time."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.diagnostic import Countdown, FixedLength, Match
from hades import policies
from hades.normalization import Normalizer
from hades.rollouts import first_episode
from hades.rollouts.first_episode import make_rollout
from tests.helpers import GoOn, Noisy, Walk, Watched, lifetime_policy, shapes

KEYS = jax.random.split(jax.random.key(7), 2)


def play_in_python(env, policy, key, params, normalizer, num_episodes, group_size, action_selection):
    """One policy's returns, lengths and seen observations, by loops over time and episodes that stop when they end."""
    step, act = jax.jit(env.step), jax.jit(lambda seen: policy.apply(params, seen))
    returns, lengths, groups = [], [], []
    for group_key in jax.random.split(key, num_episodes // group_size):
        reset_keys = jax.random.split(jax.random.fold_in(group_key, 0), group_size)
        episodes = [[*env.reset(reset_key), 0.0, 0, True] for reset_key in reset_keys]
        seen = []
        for time in range(env.max_steps):
            keys = jax.random.split(jax.random.fold_in(group_key, time + 1), group_size + 1)
            observations = np.stack([episode[1] for episode in episodes])
            seen += [episode[1] for episode in episodes if episode[4]]
            if normalizer.kind == "running":
                # The prior counts as 1e-4 observations, of mean 0 and variance 1.
                rows, prior = np.asarray(seen, np.float64), 1e-4
                mean = rows.sum(axis=0) / (len(rows) + prior)
                moment = ((rows - mean) ** 2).sum(axis=0) + prior * (1 + mean**2)
                observations = (observations - mean) / np.sqrt(moment / (len(rows) + prior) + 1e-8)
            else:
                observations = normalizer.apply(observations)
            distribution = act(jnp.asarray(observations, jnp.float32))
            actions = distribution.sample(keys[0]) if action_selection == "sample" else distribution.mode()
            for episode, step_key, action in zip(episodes, keys[1:], actions, strict=True):
                if episode[4]:
                    episode[0], episode[1], reward, terminated, truncated = step(step_key, episode[0], action)
                    episode[2] += float(reward)
                    episode[3] += 1
                    episode[4] = not (terminated or truncated)
        assert not any(episode[4] for episode in episodes)
        returns += [episode[2] for episode in episodes]
        lengths += [episode[3] for episode in episodes]
        groups.append(np.asarray(seen))
    return returns, lengths, groups


FIXED = Normalizer("fixed", jnp.array([0.5, -1.0]), jnp.array([2.0, 0.5]))


@pytest.mark.parametrize(
    ("action_selection", "normalizer", "group_size"),
    [("sample", FIXED, None), ("mode", Normalizer("running"), None), ("sample", Normalizer("running"), 2)],
    ids=["sample-fixed", "mode-running", "sample-running-groups"],
)
def test_rollouts_are_loops_over_single_episodes(action_selection, normalizer, group_size):
    env, num_episodes = Noisy(), 4
    policy = policies.mlp(env, hidden_sizes=(), kernel_init="lecun_normal")
    init = jax.jit(policy.init)
    params = [init(jax.random.key(seed)) for seed in (0, 1)]
    # One candidate, of two inits that have keys of their own.
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *params)
    rollout = jax.jit(make_rollout(env, policy, num_episodes, action_selection, group_size))
    episodes = rollout(KEYS, stacked, normalizer)
    all_lengths = []
    for index in range(2):
        returns, lengths, groups = play_in_python(
            env, policy, KEYS[index], params[index], normalizer, num_episodes, group_size or 4, action_selection
        )
        np.testing.assert_allclose(episodes.returns[0, index], returns, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(episodes.lengths[0, index], lengths)
        all_lengths += lengths
        if normalizer.kind == "running":
            for group, seen in enumerate(groups):
                found = jax.tree.map(lambda leaf: leaf[0, index, group], episodes.statistics)  # noqa: B023
                np.testing.assert_allclose(found.count, len(seen), rtol=1e-4)
                np.testing.assert_allclose(found.mean, seen.mean(axis=0), rtol=1e-3, atol=1e-3)
                np.testing.assert_allclose(found.variance, seen.var(axis=0), rtol=1e-3, atol=1e-3)
        else:
            assert episodes.statistics is None
    assert min(all_lengths) < max(all_lengths) == env.max_steps


@pytest.mark.parametrize("halvings", [0, 2])
def test_returns_and_lengths_are_those_of_the_first_episode_and_nothing_after_it(halvings):
    lifetimes = jnp.array([[46.0, 47.0], [1.0, 5.0], [48.0, 100.0]])
    rollout = jax.jit(make_rollout(GoOn(max_steps=47), lifetime_policy(), 3, "mode", halvings=halvings))
    episodes = rollout(KEYS, lifetimes, Normalizer())
    expected = np.minimum(lifetimes, 47)[:, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(episodes.returns, expected)
    np.testing.assert_array_equal(episodes.lengths, expected)
    assert episodes.lengths.dtype == jnp.int32


@pytest.mark.parametrize(
    ("env", "low", "high"), [(FixedLength(length=7), 7, 7), (Countdown(longest=9, max_steps=6), 1, 6)]
)
def test_diagnostic_returns_are_exact(env, low, high):
    policy = policies.uniform(env)
    episodes = jax.jit(make_rollout(env, policy, 64))(KEYS[:1], policy.init(KEYS[0]), Normalizer())
    returns = np.asarray(episodes.returns)
    assert returns.shape == (1, 1, 64)
    np.testing.assert_array_equal(returns, episodes.lengths)
    # 64 draws of 1..9 hit the ends with near certainty; those that a limit cuts off have its length.
    assert (returns.min(), returns.max()) == (low, high)


def test_the_loop_ends_with_the_last_living_episode():
    env = Watched(GoOn(max_steps=47), count_steps=True)
    rollout = jax.jit(make_rollout(env, lifetime_policy(), 3, "mode"))
    jax.block_until_ready(rollout(KEYS[:1], jnp.array([[2.0], [11.0]]), Normalizer()))
    jax.effects_barrier()
    assert env.steps == 11 * 2 * 3
    jax.block_until_ready(rollout(KEYS[:1], jnp.array([[4.0], [1.0]]), Normalizer()))
    jax.effects_barrier()
    assert env.steps == 11 * 2 * 3 + 4 * 2 * 3


@pytest.mark.parametrize(("halvings", "steps"), [(1, 5 * 4 + 2 * 5), (3, 5 * 4 + 2 * 3 + 1 * 2)])
def test_a_halving_leaves_candidates_behind_whose_episodes_have_ended(halvings, steps):
    env = Watched(GoOn(max_steps=47), count_steps=True)
    rollout = jax.jit(make_rollout(env, lifetime_policy(), 3, "mode", halvings=halvings))
    # After 4 steps 2 of 5 live, after 7 the last one.
    lifetimes = jnp.array([[7.0], [2.0], [4.0], [9.0], [1.0]])
    episodes = jax.block_until_ready(rollout(KEYS[:1], lifetimes, Normalizer()))
    jax.effects_barrier()
    assert env.steps == steps * 3
    np.testing.assert_array_equal(episodes.lengths, np.broadcast_to(lifetimes[..., None], (5, 1, 3)))


class Gusts(Walk):
    """`Walk` with noise of a key that its state holds."""

    def reset(self, key):
        state, observation = super().reset(key)
        return (state, key), observation

    def step(self, key, state, action):
        position, own_key = state
        own_key, gust_key = jax.random.split(own_key)
        step = super().step(key, position, action + 0.3 * jax.random.normal(gust_key))
        return step._replace(state=(step.state, own_key))


@pytest.mark.parametrize(
    ("normalizer", "drawn"), [(Normalizer(), True), (Normalizer("running"), False)], ids=["noise", "keys-running"]
)
def test_halvings_change_nothing_but_the_work(normalizer, drawn):
    env = Gusts(max_steps=30)
    policy = policies.mlp(env, hidden_sizes=(), kernel_init="lecun_normal")
    scales = jnp.linspace(-1.0, 1.0, 7)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf * scale for scale in scales]), jax.vmap(policy.init)(KEYS))

    def play(halvings):
        rollout = make_rollout(env, policy, 4, normalization_envs=2, halvings=halvings)
        random = jax.jit(rollout.draw)(KEYS) if drawn else KEYS
        return jax.jit(rollout)(random, params, normalizer)

    expected, found = play(0), play(2)
    assert len(set(np.max(expected.lengths, axis=(1, 2)).tolist())) > 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_less_than_no_halvings_are_refused():
    with pytest.raises(ValueError, match="halvings: expected a number of at least 0, got -1"):
        make_rollout(Noisy(), policies.mlp(Noisy()), 4, halvings=-1)


@pytest.mark.parametrize("normalizer", [Normalizer(), Normalizer("running")], ids=["none", "running"])
def test_candidates_share_their_random_numbers(normalizer):
    env = Noisy()
    policy = policies.mlp(env, hidden_sizes=(), kernel_init="lecun_normal")
    one = jax.vmap(policy.init)(KEYS)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf, leaf]), one)
    episodes = jax.jit(make_rollout(env, policy, 8))(KEYS, params, normalizer)
    np.testing.assert_array_equal(episodes.returns[0], episodes.returns[2])
    assert (np.asarray(episodes.returns[0]) != np.asarray(episodes.returns[1])).any()
    # The length of an episode is drawn at its reset: alike for candidates, apart for inits and episodes.
    np.testing.assert_array_equal(episodes.lengths[0], episodes.lengths[1])
    assert (np.asarray(episodes.lengths[0, 0]) != np.asarray(episodes.lengths[0, 1])).any()
    assert len(set(np.asarray(episodes.returns[0]).ravel().tolist())) == 16


@pytest.mark.parametrize("selection", ["sample", "mode"])
@pytest.mark.parametrize("make_policy", [policies.mlp, policies.uniform], ids=["noise", "keys"])
def test_noise_drawn_before_the_loop_is_that_of_the_loop(selection, make_policy):
    env = Noisy() if make_policy is policies.mlp else Countdown()
    policy = make_policy(env)
    rollout = make_rollout(env, policy, 4, selection, normalization_envs=2)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), jax.vmap(policy.init)(KEYS))
    noise = jax.jit(rollout.draw)(KEYS)
    played, expected = (jax.jit(rollout)(random, params, Normalizer()) for random in (noise, KEYS))
    jax.tree.map(np.testing.assert_array_equal, played, expected)
    in_loop = {str(random is noise): draws_in_loop(rollout, random, params) for random in (noise, KEYS)}
    assert in_loop == {"True": False, "False": True}


def draws_in_loop(rollout, random, params):
    """Whether the loop over steps of a rollout derives keys or draws numbers for its policies."""
    traced = jax.make_jaxpr(rollout)(random, params, Normalizer())
    (loop,) = (equation for equation in traced.jaxpr.eqns if equation.primitive.name == "while")
    return "random_fold_in" in str(loop.params["body_jaxpr"])


def test_noise_that_would_fill_the_memory_is_drawn_step_by_step(monkeypatch):
    rollout = make_rollout(Noisy(), policies.mlp(Noisy()), 4)
    # Six steps, two inits and four episodes: three words of noise and two of a key; and the keys of the groups.
    size = 6 * 2 * 4 * (3 + 2) * 4 + 2 * 2 * 4
    monkeypatch.setattr(first_episode, "MOST_NOISE_BYTES", size)
    assert isinstance(rollout.draw(KEYS), first_episode.EpisodeNoise)
    monkeypatch.setattr(first_episode, "MOST_NOISE_BYTES", size - 1)
    assert rollout.draw(KEYS) is KEYS


def test_samples_follow_the_distribution_and_modes_do_not_stray():
    env = Match(num_actions=2, max_steps=20)
    policy = policies.mlp(env, hidden_sizes=())
    logit = np.log(3.0)  # the right action with probability 3/4
    params = {"head": {"kernel": logit * jnp.eye(2)[None, None], "bias": jnp.zeros((1, 1, 2))}}

    def play(selection):
        rollout = jax.jit(make_rollout(env, policy, 200, selection))
        return np.asarray(rollout(KEYS[:1], params, Normalizer()).returns)

    returns = {selection: play(selection) for selection in ("sample", "mode")}
    np.testing.assert_array_equal(returns["mode"], 20)
    # 4000 actions: five standard errors are 0.034.
    assert abs(returns["sample"].mean() / 20 - 0.75) < 0.034


def test_groups_of_environments_normalise_apart_from_each_other():
    env = Noisy()
    policy = policies.mlp(env, hidden_sizes=(), kernel_init="lecun_normal")
    params = jax.vmap(jax.vmap(policy.init))(KEYS[:1, None])
    normalizer = Normalizer("running")
    apart = jax.jit(make_rollout(env, policy, 4, normalization_envs=2))(KEYS[:1], params, normalizer)
    assert apart.statistics.mean.shape == (1, 1, 2, 2)
    assert (np.asarray(apart.statistics.mean[0, 0, 0]) != np.asarray(apart.statistics.mean[0, 0, 1])).all()
    # The first group is what a rollout of it alone would be, with its own key.
    np.testing.assert_allclose(apart.statistics.count.sum(), apart.lengths.sum(), rtol=1e-4)
    np.testing.assert_allclose(
        apart.statistics.count[0, 0], np.asarray(apart.lengths[0, 0]).reshape(2, 2).sum(axis=1), rtol=1e-4
    )


def test_nothing_has_a_time_axis():
    env = GoOn(max_steps=47)
    policy = policies.mlp(env, hidden_sizes=(8,), kernel_init="lecun_normal")
    params = jax.eval_shape(jax.vmap(jax.vmap(policy.init)), jnp.stack([KEYS, KEYS]))
    rollout = make_rollout(env, policy, 4, normalization_envs=2)
    traced = jax.make_jaxpr(rollout)(KEYS, params, Normalizer("running"))
    found = set(shapes(traced.jaxpr))
    assert (2, 2, 2, 2, 8) in found  # candidates, inits, groups, environments and hidden units: it looks into the loop
    assert not any(env.max_steps in shape for shape in found)

    def stacked(keys):
        return jax.lax.scan(lambda carry, _: (carry, carry), keys, None, length=env.max_steps)

    assert any(env.max_steps in shape for shape in shapes(jax.make_jaxpr(jax.jit(stacked))(1.0).jaxpr))


def test_episodes_that_do_not_fill_their_groups_are_refused():
    with pytest.raises(ValueError, match="num_episodes: expected a multiple of 3.* got 4"):
        partial(make_rollout, GoOn(), lifetime_policy())(4, normalization_envs=3)


@pytest.mark.parametrize(("sizes", "name"), [((0, None), "num_episodes"), ((4, 0), "normalization_envs")])
def test_sizes_that_are_not_positive_are_refused(sizes, name):
    with pytest.raises(ValueError, match=f"^{name}: expected a number above 0, got 0"):
        partial(make_rollout, GoOn(), lifetime_policy())(sizes[0], normalization_envs=sizes[1])
