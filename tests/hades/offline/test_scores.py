"""Normalised scores against numbers worked out by hand."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest

from hades.offline.scores import D4RL_DOMAINS, ScoreReference, d4rl_domain, normalized_score, score_reference


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("name", "returns", "score"),
    [
        # 100 (1000 + 20.272305) / (3234.3 + 20.272305) = 102027.2305 / 3254.572305
        ("Hopper", 1000.0, 31.3488904),
        # 100 (0 + 280.178953) / (12135 + 280.178953) = 28017.8953 / 12415.178953
        ("HalfCheetah", 0.0, 2.2567451),
        # 100 (5000 - 1.629008) / (4592.3 - 1.629008) = 499837.0992 / 4590.670992
        ("Walker2d", 5000.0, 108.8810547),
    ],
)
def test_d4rl_scores(name: str, version: int, returns: float, score: float) -> None:
    env = f"gymnasium/{name}-v{version}"
    assert normalized_score(env, returns) == pytest.approx(score, abs=1e-6)
    reference = score_reference(env)
    assert reference is not None
    assert normalized_score(env, reference.random) == 0.0
    assert normalized_score(env, reference.expert) == 100.0


@pytest.mark.parametrize(
    ("name", "returns", "score"),
    [
        ("door-human-v0", -56.512833, 0.0),
        ("door_cloned-v1.hdf5", 2880.5693087298737, 100.0),
        ("antmaze-large-play-v2", 0.5, 50.0),
        ("kitchen-mixed-v0", 1.0, 25.0),
        ("maze2d-umaze-dense-v1.hdf5", 68.537689, 0.0),
        ("bullet-hopper-medium-replay-v0", 1441.8059623430963, 100.0),
        ("ant_full_replay-v2.h5", -325.6, 0.0),
    ],
)
def test_every_domain_of_d4rl_has_its_scores(name: str, returns: float, score: float) -> None:
    domain = d4rl_domain(name)
    assert domain is not None and domain.reference is not None
    assert domain.reference.normalize(returns) == pytest.approx(score, abs=1e-9)


def test_names_of_d4rl_belong_to_one_domain_and_others_to_none() -> None:
    for domain in D4RL_DOMAINS:
        name = re.sub(r"\(([\w-]+)(\|[\w|-]+)?\)\??", r"\1", domain.pattern)
        assert [other for other in D4RL_DOMAINS if re.fullmatch(other.pattern, name)] == [domain]
    assert d4rl_domain("hopper") is None
    assert d4rl_domain("hopper-medium-v7") is None


def test_the_reference_of_a_file_goes_before() -> None:
    own = {"score_reference": {"random": 1.0, "expert": 3.0}}
    assert score_reference("gymnasium/Hopper-v4", own) == ScoreReference(1.0, 3.0)
    assert score_reference("gymnasium/Hopper-v4", {}) == score_reference("gymnasium/Hopper-v4")


def test_arrays_of_any_shape_and_a_reference_of_ones_own() -> None:
    reference = ScoreReference(random=-10.0, expert=30.0)
    expected = [[0.0, 100.0], [25.0, 150.0]]
    for module in (np, jnp):
        found = normalized_score("brax/hopper", module.asarray([[-10.0, 30.0], [0.0, 50.0]]), reference)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("env", ["brax/hopper", "Hopper-v4", "gymnasium/Hopper-v6", "gymnasium/Ant-v4", ""])
def test_no_reference(env: str) -> None:
    assert score_reference(env) is None
    with pytest.raises(ValueError, match="env: expected one of gymnasium/HalfCheetah-v2") as caught:
        normalized_score(env, 1.0)
    assert str(caught.value).endswith(f"got {env}")


def test_a_reference_without_a_range() -> None:
    with pytest.raises(ValueError, match="expert: expected another return than random"):
        ScoreReference(1.0, 1.0).normalize(2.0)
