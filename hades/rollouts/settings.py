"""Settings of how policies see their environment and act in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hades._validation import require_positive_fields
from hades.distributions import ActionSelection
from hades.normalization import Normalization


@dataclass(frozen=True)
class PlaySettings:
    """Observation normalisation and action selection."""

    observation_normalization: Normalization = "fixed"
    """none, fixed statistics of random rollouts, or running ones of the episodes that are played."""
    statistics_episodes: int = 64
    """Episodes of random actions that statistics are measured on."""
    min_std: float = 0.01
    """Smallest standard deviation that observations are divided by."""
    action_selection: ActionSelection = "sample"
    """Whether policies act by a sample of their distribution or by its mode."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        require_positive_fields(self, "statistics_episodes", "min_std")

    @property
    def played(self) -> PlaySettings:
        """These fields alone, of settings that add to them."""
        return PlaySettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(PlaySettings)})
