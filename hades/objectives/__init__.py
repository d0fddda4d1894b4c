"""Objectives: what a trained policy is worth."""

from hades.objectives.states import LabelledStates, StateObjective, av_pbc, dbc, pbc, pbc_mean_weight, sdw

__all__ = ["LabelledStates", "StateObjective", "av_pbc", "dbc", "pbc", "pbc_mean_weight", "sdw"]
