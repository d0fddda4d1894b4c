"""Objectives: the part J of F(D) = E_k[J(A_T(theta_0(k), D), k)], a value of trained policies."""

from hades.objectives.classification import Classification
from hades.objectives.episodic_return import EpisodicReturn
from hades.objectives.policy_gradient import PolicyGradient, PolicyGradientSettings, PolicyGradientState
from hades.objectives.states import (
    Critic,
    LabelledStates,
    OfflineStates,
    StateObjective,
    av_pbc,
    dbc,
    pbc,
    pbc_mean_weight,
    q_pbc,
    sdw,
    sdw_av_pbc,
    sdw_pbc,
)

__all__ = [
    "Classification",
    "Critic",
    "EpisodicReturn",
    "LabelledStates",
    "OfflineStates",
    "PolicyGradient",
    "PolicyGradientSettings",
    "PolicyGradientState",
    "StateObjective",
    "av_pbc",
    "dbc",
    "pbc",
    "pbc_mean_weight",
    "q_pbc",
    "sdw",
    "sdw_av_pbc",
    "sdw_pbc",
]
