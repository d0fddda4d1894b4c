"""Names have exactly the length of what they name."""

from typing import Any

import numpy as np
import pytest

import envs
from envs import names as tables
from hades.types import Discrete

# Those of Playground, an extra, are in test_playground.py; those of images need files.
_ALL = {*tables._OBSERVATIONS, *tables._ACTIONS, *tables._BRAX}
NAMED = sorted(name for name in _ALL if name != "brax/swimmer" and not name.startswith(("images/", "playground/")))


def make(name: str) -> Any:
    return envs.make(name, **({"backend": "spring"} if name.startswith("brax/") else {}))


@pytest.mark.parametrize("name", NAMED)
def test_names_have_the_length_of_what_they_name(name: str) -> None:
    environment = make(name)
    actions, observations = envs.action_names(name), envs.observation_names(name)
    space = environment.action_space
    assert actions is not None
    assert len(actions) == (space.num_actions if isinstance(space, Discrete) else space.action_dim)
    assert len(set(actions)) == len(actions)
    if observations is not None:
        assert (len(observations),) == environment.observation_shape
        assert len(set(observations)) == len(observations) and all(observations)
    assert (observations is None) == name.endswith("-MinAtar")


@pytest.mark.parametrize("name", sorted(tables._CHANNELS))
def test_channels(name: str) -> None:
    channels = envs.channel_names(name)
    assert channels is not None and len(set(channels)) == len(channels)
    assert make(name).observation_shape == (10, 10, len(channels))


def test_every_brax_and_minatar_environment_is_named() -> None:
    listed = envs.list_environments()
    assert {name for name in listed if name.startswith("brax/")} == set(tables._BRAX) - {"brax/swimmer"}
    assert {name for name in listed if name.endswith("-MinAtar")} == set(tables._CHANNELS)


def test_the_swimmer_which_does_not_run_is_named_too() -> None:
    assert len(envs.observation_names("brax/swimmer") or ()) == 8
    assert envs.action_names("brax/swimmer") == ("rot2", "rot3")


@pytest.mark.parametrize("name", ["brax/ant", "brax/humanoid", "brax/walker2d", "brax/pusher"])
def test_actuators_drive_the_joints_they_are_named_after(name: str) -> None:
    system = make(name).simulator.sys
    degrees = tables._robot_names(name).degrees
    assert envs.action_names(name) == tuple(degrees[index] for index in np.asarray(system.actuator.qd_id))
    assert tables._robot_names(name).links[0] == system.link_names[0]
    assert len(tables._robot_names(name).links) == system.num_links()


def test_the_unknown_has_no_names() -> None:
    for name in ("diagnostic/match", "gymnax/Catch-bsuite", "nonsense"):
        assert envs.observation_names(name) is envs.action_names(name) is envs.channel_names(name) is None
