"""Normalised scores: 0 is what random actions return, 100 what an expert does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

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


# Fu et al. (2020), D4RL (arXiv 2004.07219), infos.py of the released code. Those of locomotion were measured in -v2 of
# each environment, and are used by everybody for the later versions, too.
_HALFCHEETAH = ScoreReference(random=-280.178953, expert=12135.0)
_HOPPER = ScoreReference(random=-20.272305, expert=3234.3)
_WALKER2D = ScoreReference(random=1.629008, expert=4592.3)
_ANT = ScoreReference(random=-325.6, expert=3879.7)
_DOOR = ScoreReference(random=-56.512833, expert=2880.5693087298737)
_HAMMER = ScoreReference(random=-274.856578, expert=12794.134825156867)
_PEN = ScoreReference(random=96.262799, expert=3076.8331017826877)
_RELOCATE = ScoreReference(random=-6.425911, expert=4233.877797728884)

_LOCOMOTION = {"HalfCheetah": _HALFCHEETAH, "Hopper": _HOPPER, "Walker2d": _WALKER2D}
_HANDS = {"Door": _DOOR, "Hammer": _HAMMER, "Pen": _PEN, "Relocate": _RELOCATE}
D4RL_REFERENCES = {
    **{f"gymnasium/{name}-v{version}": _LOCOMOTION[name] for name in _LOCOMOTION for version in (2, 3, 4, 5)},
    **{f"gymnasium/AdroitHand{name}-v1": _HANDS[name] for name in _HANDS},
}
"""References by the name of the environment. Brax returns are on another scale, and have none; those of Ant-v4 and -v5
differ from D4RL's, which cost no contact."""


class D4RLDomain(NamedTuple):
    """A family of D4RL's datasets.

    Attributes:
        pattern: Regular expression of their names without version, words joined by hyphens.
        reference: Returns that score 0 and 100; None where the paper gives none.
        env: The environment here whose observations and actions are theirs; None where there is none.
    """

    pattern: str
    reference: ScoreReference | None
    env: str | None = None


_STAGES = "(random|medium|expert|medium-replay|full-replay|medium-expert|random-expert|mixed)"
# Also as the files of -v0 are called.
_GATHERED = "(human|cloned|expert|v0-demos-clipped|v0-expert-clipped|demos-v0-bc-combined)"
D4RL_DOMAINS = (
    D4RLDomain(f"halfcheetah-{_STAGES}", _HALFCHEETAH, "gymnasium/HalfCheetah-v4"),
    D4RLDomain(f"hopper-{_STAGES}", _HOPPER, "gymnasium/Hopper-v4"),
    D4RLDomain(f"walker(2d)?-{_STAGES}", _WALKER2D, "gymnasium/Walker2d-v4"),
    # Their observations hold contact forces, which are all zero, and which Ant-v4 leaves out.
    D4RLDomain(f"ant-{_STAGES}", _ANT),
    D4RLDomain(f"door-{_GATHERED}", _DOOR, "gymnasium/AdroitHandDoor-v1"),
    D4RLDomain(f"hammer-{_GATHERED}", _HAMMER, "gymnasium/AdroitHandHammer-v1"),
    D4RLDomain(f"pen-{_GATHERED}", _PEN, "gymnasium/AdroitHandPen-v1"),
    D4RLDomain(f"relocate-{_GATHERED}", _RELOCATE, "gymnasium/AdroitHandRelocate-v1"),
    D4RLDomain("antmaze-(umaze|medium|large)(-diverse|-play)?", ScoreReference(0.0, 1.0)),
    D4RLDomain("kitchen-(complete|partial|mixed)", ScoreReference(0.0, 4.0)),
    D4RLDomain("maze2d-open(-sparse)?", ScoreReference(0.01, 20.66)),
    D4RLDomain("maze2d-umaze(-sparse)?", ScoreReference(23.85, 161.86)),
    D4RLDomain("maze2d-medium(-sparse)?", ScoreReference(13.13, 277.39)),
    D4RLDomain("maze2d-large(-sparse)?", ScoreReference(6.7, 273.99)),
    D4RLDomain("maze2d-open-dense", ScoreReference(11.17817, 27.166538620695782)),
    D4RLDomain("maze2d-umaze-dense", ScoreReference(68.537689, 193.66285642381482)),
    D4RLDomain("maze2d-medium-dense", ScoreReference(44.264742, 297.4552547777125)),
    D4RLDomain("maze2d-large-dense", ScoreReference(30.569041, 303.4857382709002)),
    D4RLDomain("minigrid-fourrooms(-random)?", ScoreReference(0.01442, 2.89685)),
    D4RLDomain("flow-ring-(random|controller)", ScoreReference(-165.22, 24.42)),
    D4RLDomain("flow-merge-(random|controller)", ScoreReference(118.67993, 330.03179)),
    D4RLDomain("carla-lane", ScoreReference(-0.8503839912088142, 1023.5784385429523)),
    D4RLDomain("carla-town", ScoreReference(-114.81579500772153, 2440.1772022247314)),
    D4RLDomain("carla-town-full", None),
    D4RLDomain(f"bullet-halfcheetah-{_STAGES}", ScoreReference(-1275.766996, 2381.6725)),
    D4RLDomain(f"bullet-hopper-{_STAGES}", ScoreReference(20.058972, 1441.8059623430963)),
    D4RLDomain(f"bullet-ant-{_STAGES}", ScoreReference(373.705955, 2650.495)),
    D4RLDomain(f"bullet-walker2d-{_STAGES}", ScoreReference(16.523877, 1623.6476303317536)),
    D4RLDomain("bullet-maze2d-open", ScoreReference(8.75, 64.15)),
    D4RLDomain("bullet-maze2d-umaze", ScoreReference(32.46, 153.99)),
    D4RLDomain("bullet-maze2d-medium", ScoreReference(14.87, 238.05)),
    D4RLDomain("bullet-maze2d-large", ScoreReference(1.82, 285.92)),
)
"""All datasets of D4RL, versions 0 to 2."""


def d4rl_domain(dataset: str) -> D4RLDomain | None:
    """The family of a dataset of D4RL; None for other names.

    Args:
        dataset: Such as `"hopper-medium-v2"`, or the name of its file, with or without version and suffix.

    Example:
        >>> d4rl_domain("door-human-v1.hdf5").env
        'gymnasium/AdroitHandDoor-v1'
    """
    name = re.sub(r"(\.h5|\.hdf5)$", "", dataset.lower())
    name = re.sub(r"-v[012]$", "", name.replace("_", "-"))
    return next((domain for domain in D4RL_DOMAINS if re.fullmatch(domain.pattern, name)), None)


def score_reference(env_name: str, attributes: Mapping[str, Any] | None = None) -> ScoreReference | None:
    """The reference of an environment; None where there is none.

    Args:
        env_name: Such as `"gymnasium/Hopper-v4"`, of which D4RL has one.
        attributes: Of a data file, whose own `score_reference` goes before.
    """
    own = (attributes or {}).get("score_reference")
    return ScoreReference(float(own["random"]), float(own["expert"])) if own else D4RL_REFERENCES.get(env_name)


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
