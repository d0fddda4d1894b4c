"""Inner loops: what trains a policy on a dataset."""

from hades.inner.cloning import BehaviourCloning, CloningSettings, behaviour_cloning

__all__ = ["BehaviourCloning", "CloningSettings", "behaviour_cloning"]
