"""The inner loop that trains nothing: solutions are policies themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax

from hades.policies import NetworkSettings, Policy
from hades.types import Params

if TYPE_CHECKING:
    from hades.dataset import SyntheticDataset


@dataclass(frozen=True)
class Identity:
    """A_T of neuroevolution: what stands in the dataset's place are the parameters that play.

    Attributes:
        policy: Architecture.
        settings: Settings that describe it in files; None for a policy of a user's own.
    """

    policy: Policy
    settings: NetworkSettings | None = field(default=None, compare=False)

    def init(self, key: jax.Array) -> Params:
        """No parameters: nothing is initialised."""
        del key
        return ()

    def fit(self, key: jax.Array, params: Params, dataset: SyntheticDataset | Params) -> Any:
        """Returns the parameters that were decoded from the solution."""
        del key, params
        return dataset
