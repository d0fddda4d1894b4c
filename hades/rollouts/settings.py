"""Settings of how policies see their environment and act in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hades._validation import require_positive_fields
from hades.distributions import ActionSelection
from hades.normalization import Normalization, Normalizer


@dataclass(frozen=True)
class PlaySettings:
    """Observation normalisation and action selection."""

    observation_normalization: Normalization = "fixed"
    """none, fixed statistics of random rollouts, or running ones of the episodes that are played."""
    statistics_episodes: int = 64
    """Episodes of random actions that fixed statistics, and the first running ones of HaDES-PG, are measured on."""
    min_std: float = 0.01
    """Smallest standard deviation of fixed statistics, and of running ones that a whole run gathers."""
    action_selection: ActionSelection = "sample"
    """Whether policies act by a sample of their distribution or by its mode."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        require_positive_fields(self, "statistics_episodes", "min_std")

    def require_kind(self, normalizer: Normalizer) -> None:
        """Raises `ValueError` unless a normaliser is of the kind that these settings ask for."""
        kind = self.observation_normalization
        if normalizer.kind != kind:
            raise ValueError(
                f"normalizer: expected one of kind {kind}, as observation_normalization says, got {normalizer.kind}"
            )

    @property
    def played(self) -> PlaySettings:
        """These fields alone, of settings that add to them."""
        return PlaySettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(PlaySettings)})
