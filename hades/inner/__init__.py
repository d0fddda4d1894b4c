"""Inner loops: training a policy on a dataset, the part A of F(D) = E_k[J(A_T(theta_0(k), D), k)]."""

from hades.inner.cloning import BehaviourCloning, CloningSettings, SampledLoss, behaviour_cloning
from hades.inner.curvature import StableStep, largest_curvature
from hades.inner.identity import Identity

__all__ = [
    "BehaviourCloning",
    "CloningSettings",
    "Identity",
    "SampledLoss",
    "StableStep",
    "behaviour_cloning",
    "largest_curvature",
]
