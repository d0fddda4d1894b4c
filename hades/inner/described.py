"""Settings that describe an inner loop in files, where there are any."""

from __future__ import annotations

from hades import policies
from hades.inner import cloning
from hades.inner.cloning import BehaviourCloning, CloningSettings
from hades.inner.identity import Identity
from hades.policies import NetworkSettings, Spaces
from hades.types import InnerLoop


def settings_of(inner: InnerLoop, env: Spaces) -> CloningSettings | None:
    """Settings that describe an inner loop for the spaces of `env`, None for one that none describe.

    An inner loop that was put together by hand, or changed after it was made from settings, is not described. Windows
    and rematerialisation change gradients and memory, not the policies that a dataset trains, and do not count.
    """
    if isinstance(inner, BehaviourCloning) and inner.settings is not None:
        described = cloning.from_settings(env, inner.settings, inner.rematerialize, inner.window)
        return inner.settings if inner == described else None
    if isinstance(inner, Identity) and inner.settings is not None:
        return architecture(inner.settings) if inner.policy == policies.from_settings(env, inner.settings) else None
    return None


def architecture(network: NetworkSettings) -> CloningSettings:
    """Cloning settings of a policy that was not cloned: its architecture, and defaults for the rest."""
    return CloningSettings(**vars(network.network_settings))
