"""Reinforcement learning: PPO, the baseline that learns from rewards, and the teacher of what is distilled offline."""

from hades.rl.advantages import generalized_advantages
from hades.rl.losses import ppo_loss
from hades.rl.ppo import PPO, Hyperparameters, PPOSettings, PPOState, make_ppo

__all__ = [
    "PPO",
    "Hyperparameters",
    "PPOSettings",
    "PPOState",
    "generalized_advantages",
    "make_ppo",
    "ppo_loss",
]
