"""Settings of Cal-QL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hades._validation import (
    require_below_one,
    require_not_negative_fields,
    require_positive,
    require_positive_fields,
)

AfterTimeout = Literal["mean_reward", "nothing"]


@dataclass(frozen=True)
class CalQLSettings:
    """Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479), that is CQL (Kumar et al. 2020, arXiv 2006.04779), calibrated.

    The defaults are those of the teachers of OBD (arXiv 2410.22728) and of Cal-QL's public configurations for
    locomotion, as far as they are known; no Lagrange multiplier, no entropy in the critics' targets.
    """

    actor_hidden_sizes: tuple[int, ...] = (256, 256, 256)
    """Widths of the actor's hidden layers, relu."""
    critic_hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of each of the two critics, relu."""
    actor_learning_rate: float = 1e-4
    """Step size of Adam for the actor and the entropy temperature."""
    critic_learning_rate: float = 3e-4
    """Step size of Adam for the critics."""
    batch_size: int = 256
    """Transitions of an update, drawn with replacement."""
    discount: float = 0.99
    """Discount of a step."""
    polyak: float = 0.005
    """Part of the way that target critics go towards the critics at each update."""
    target_entropy: float | None = None
    """Entropy in nats that the temperature aims at, of actions scaled to [-1, 1]; default: minus their number of
    components."""
    conservative_weight: float = 5.0
    """Weight alpha of the conservative term beside the critics' squared error; 0 is soft actor-critic on the data."""
    conservative_temperature: float = 1.0
    """Temperature of the soft maximum over actions in the conservative term."""
    num_actions: int = 10
    """Actions drawn for each state in the conservative term, from each of three sources: uniform, the policy, and the
    policy at the next state; and for the targets."""
    importance_sampling: bool = True
    """Whether the soft maximum divides each drawn action by the density that it was drawn with."""
    max_target_backup: bool = True
    """Whether targets take the best of num_actions next actions, or one that the policy draws."""
    calibrated: bool = True
    """Whether values of the policy's actions count as at least the return of the data in the conservative term; without
    it this is CQL."""
    after_timeout: AfterTimeout = "mean_reward"
    """Continuation of the data's returns where a trajectory was cut: its mean reward for ever, or nothing. The
    published code adds nothing, which is no lower bound where rewards are negative."""
    cloning_updates: int = 0
    """First updates in which the actor maximises the likelihood of the data's actions in place of their value."""
    reward_scale: float = 1.0
    """Factor of rewards."""
    reward_bias: float = 0.0
    """Constant added to rewards after scaling."""
    normalize_observations: bool = True
    """Whether networks see observations less their mean in the data, divided by their standard deviation."""
    std_offset: float = 1e-3
    """Constant added to that standard deviation, so that constant components stay finite."""

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return "cal-ql"

    def __post_init__(self) -> None:
        """Refuses sizes and rates out of range."""
        require_positive_fields(self, "actor_learning_rate", "critic_learning_rate", "batch_size")
        require_positive_fields(self, "conservative_temperature", "num_actions", "reward_scale", "std_offset")
        for name in ("actor_hidden_sizes", "critic_hidden_sizes"):
            for size in getattr(self, name):
                require_positive(name, size)
        require_below_one("discount", self.discount)
        if not 0 < self.polyak <= 1:
            raise ValueError(f"polyak: expected a number in (0, 1], got {self.polyak}")
        require_not_negative_fields(self, "conservative_weight", "cloning_updates")
        if not math.isfinite(self.reward_bias):
            raise ValueError(f"reward_bias: expected a finite number, got {self.reward_bias}")
