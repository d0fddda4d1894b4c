"""Settings of PPO, and those that it shares with policy gradients through the inner loop."""

from __future__ import annotations

from dataclasses import dataclass

from hades._validation import require_not_negative_fields, require_positive_fields
from hades.normalization import Normalization
from hades.policies import NetworkSettings
from hades.rollouts.settings import PlaySettings


@dataclass(frozen=True)
class OnPolicySettings(PlaySettings):
    """Collection of steps by the present policy, their advantages, and the clipped surrogate."""

    num_envs: int = 32
    """Environments that are played at once."""
    num_steps: int = 128
    """Steps of each environment between two updates."""
    num_epochs: int = 4
    """Passes of an update over the collected steps."""
    num_minibatches: int = 4
    """Parts that each of these passes is split into, at random; one gradient step each."""
    gamma: float = 0.99
    """Discount of a step."""
    gae_lambda: float = 0.95
    """Weight of longer estimates of the advantage: 0 is the one-step error, 1 the whole return."""
    clip_range: float = 0.2
    """Largest distance of the probability ratio from 1 that still gains."""
    value_clip_range: float | None = None
    """Largest distance of a value from the one at collection that still gains; default: no limit."""
    entropy_coefficient: float = 0.01
    """Weight of the policy's entropy."""
    normalize_advantages: bool = True
    """Whether the advantages of a minibatch are shifted and scaled to mean 0 and standard deviation 1."""
    normalize_rewards: bool = False
    """Whether rewards are divided by the running standard deviation of the discounted return."""

    def __post_init__(self) -> None:
        """Refuses sizes and rates out of range, and a collection that does not split into its minibatches."""
        super().__post_init__()
        require_positive_fields(self, "num_envs", "num_steps", "num_epochs", "num_minibatches")
        require_positive_fields(self, "clip_range", "value_clip_range")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], got {getattr(self, name)}")
        require_not_negative_fields(self, "entropy_coefficient")
        self._require_divisors("num_minibatches")

    @property
    def env_steps(self) -> int:
        """Steps of the environment in one update."""
        return self.num_envs * self.num_steps

    def _require_divisors(self, *names: str) -> None:
        for name in names:
            if self.env_steps % getattr(self, name):
                raise ValueError(
                    f"{name}: expected a divisor of num_envs * num_steps = {self.env_steps}, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class PPOSettings(OnPolicySettings):
    """Proximal policy optimisation. The defaults suit small tasks."""

    network: NetworkSettings = NetworkSettings()
    """Architecture of the policy; the critic is another network with the same hidden layers."""
    learning_rate: float = 3e-4
    """Step size of adam."""
    anneal_updates: int | None = None
    """Updates over which the learning rate falls linearly to 0; default: constant."""
    value_coefficient: float = 0.5
    """Weight of the value loss, which is half of the mean squared error."""
    max_grad_norm: float | None = 0.5
    """Largest global norm of the gradient of both networks; default: no clipping."""
    adam_eps: float = 1e-5
    """Epsilon in the denominator of adam."""
    observation_normalization: Normalization = "none"
    """none, fixed statistics of random rollouts, or running ones of all that training has seen."""

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return "ppo"

    def __post_init__(self) -> None:
        """Refuses also rates out of range, and an action distribution that has no entropy in closed form."""
        super().__post_init__()
        require_positive_fields(self, "learning_rate", "adam_eps", "anneal_updates", "max_grad_norm")
        require_not_negative_fields(self, "value_coefficient")
        if self.network.action_distribution != "gaussian":
            raise ValueError(f"action_distribution: PPO needs gaussian, got {self.network.action_distribution}")
