"""Normalised scores: 0 is what random actions return, 100 what an expert does."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import numpy as np

Returns = TypeVar("Returns", float, np.ndarray, jax.Array)


class ScoreReference(NamedTuple):
    """The two returns that make a score of an environment comparable.

    Attributes:
        random: Return that scores 0.
        expert: Return that scores 100.
    """

    random: float
    expert: float

    def normalize(self, returns: Returns) -> Returns:
        """100 (return - random) / (expert - random), of any shape.

        Raises:
            ValueError: The two returns are equal.
        """
        if self.expert == self.random:
            raise ValueError(f"expert: expected another return than random, got {self.expert} for both")
        return 100.0 * (returns - self.random) / (self.expert - self.random)


# Fu et al. (2020), D4RL: measured in -v2 of each environment, and used by everybody for the later versions too.
_D4RL = {
    "HalfCheetah": ScoreReference(random=-280.178953, expert=12135.0),
    "Hopper": ScoreReference(random=-20.272305, expert=3234.3),
    "Walker2d": ScoreReference(random=1.629008, expert=4592.3),
}
D4RL_REFERENCES = {f"gymnasium/{name}-v{version}": _D4RL[name] for name in _D4RL for version in (2, 3, 4, 5)}
"""References by the name of the environment. Brax returns are on another scale, and have none."""


def score_reference(env_name: str) -> ScoreReference | None:
    """The reference of D4RL for an environment such as `"gymnasium/Hopper-v4"`; None where there is none."""
    return D4RL_REFERENCES.get(env_name)


def normalized_score(env_name: str, returns: Returns, reference: ScoreReference | None = None) -> Returns:
    """Normalised scores of returns in an environment.

    Args:
        env_name: Such as `"gymnasium/Hopper-v4"`.
        returns: Undiscounted returns of whole episodes, of any shape.
        reference: One's own reference; None takes that of D4RL.

    Raises:
        ValueError: No reference is known for this environment.

    Example:
        >>> normalized_score("gymnasium/Hopper-v4", 3234.3)
        100.0
        >>> normalized_score("brax/hopper", 50.0, ScoreReference(random=0.0, expert=200.0))
        25.0
    """
    reference = score_reference(env_name) if reference is None else reference
    if reference is None:
        raise ValueError(
            f"env: expected one of {', '.join(D4RL_REFERENCES)}, for which D4RL gives reference returns, got {env_name}"
        )
    return reference.normalize(returns)
