"""Offline data on device: transitions, one behind the other, in the order in which they were collected."""

from __future__ import annotations

import jax
from flax import struct


@struct.dataclass
class Transitions:
    """Transitions of one environment; a trajectory ends where `terminals` or `timeouts` is true, or with the data.

    Attributes:
        observations: Raw, before normalisation, `[transitions, *observation_shape]` float32.
        actions: In the environment's units, `[transitions, action_dim]` float32.
        rewards: `[transitions]` float32.
        next_observations: Likewise raw, of the state that followed, never that of a new trajectory,
            `[transitions, *observation_shape]` float32.
        terminals: The trajectory reached an end that is part of the task, `[transitions]` bool.
        timeouts: The trajectory was cut off after this transition, `[transitions]` bool.
        env: Name of the environment, such as `"gymnasium/Hopper-v4"`; None where it is not known.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_observations: jax.Array
    terminals: jax.Array
    timeouts: jax.Array
    env: str | None = struct.field(pytree_node=False, default=None)

    @property
    def num_transitions(self) -> int:
        """How many transitions there are."""
        return self.rewards.shape[0]
