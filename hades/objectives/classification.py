"""The objective of image distillation: how well trained networks classify real images."""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from hades._validation import require_positive
from hades.distributions import invalid_actions
from hades.fitness import Problem
from hades.images.data import LabelledImages
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.types import Metrics, Params, Policies

Measure: TypeAlias = Literal["cross_entropy", "accuracy"]


@struct.dataclass
class Classification:
    """Minus the cross-entropy, or the accuracy, on a minibatch of real images (arXiv 2406.15042, section 5.4).

    A `hades.types.Objective` whose problem are the rows of each initialisation's images, which candidates share. It
    reports the accuracy beside either. The images are leaves, so that compiled programs take them as an argument.

    Attributes:
        data: Real images.
        policy: Network, whose actions are classes.
        num_images: Images of an iteration for each initialisation, drawn with replacement.
        measure: Which of the two is maximised; the accuracy has no gradient.

    Example:
        >>> import hades
        >>> from hades.images import ImageClassification
        >>> data = LabelledImages(jnp.zeros((4, 2, 2, 1)), jnp.array([0, 1, 1, 1]), num_classes=2)
        >>> policy = hades.policies.mlp(ImageClassification("images/mine", data))
        >>> objective = Classification(data, policy, num_images=8)
        >>> params = jax.tree.map(lambda leaf: leaf[None, None], policy.init(jax.random.key(0)))
        >>> problem = Problem(jnp.zeros((1, 8), jnp.int32))
        >>> values, counts = objective.value(problem, params)
        >>> bool(values[0, 0] < 0), float(counts["accuracy"][0]) in (0.0, 1.0)
        (True, True)
    """

    data: LabelledImages
    policy: Policy = struct.field(pytree_node=False)
    num_images: int = struct.field(pytree_node=False, default=256)
    measure: Measure = struct.field(pytree_node=False, default="cross_entropy")

    def __post_init__(self) -> None:
        """Refuses a number of images that is not positive."""
        require_positive("num_images", self.num_images)

    def init(self, key: jax.Array) -> tuple[()]:
        """No state."""
        del key
        return ()

    def draw(self, key: jax.Array, state: tuple[()], policies: Policies) -> tuple[Problem, tuple[()], Metrics]:
        """Draws the rows of this iteration's images, `[inits, num_images]`."""
        shape = (policies.num_inits, self.num_images)
        return Problem(jax.random.randint(key, shape, 0, self.data.num_images)), state, {}

    def value(self, problem: Problem, params: Params) -> tuple[jax.Array, Metrics]:
        """Values `[candidates, inits]`, and the mean `accuracy` of each candidate."""

        def score(rows: jax.Array, network: Params) -> tuple[jax.Array, jax.Array]:
            real = self.data.take(rows)
            distribution = self.policy.apply(network, real.images)
            named = distribution.mode()
            # The mode of logits that are not a number is a class as any other.
            invalid = invalid_actions(distribution, named)
            right = (named == real.labels) & ~invalid
            scored = right if self.measure == "accuracy" else distribution.log_prob(real.labels)
            return jnp.mean(jnp.where(invalid, jnp.nan, scored)), jnp.mean(right)

        over_inits = jax.vmap(jax.vmap(score), in_axes=(None, 0))
        values, accuracies = over_inits(problem.per_init, params)
        counts = {
            "accuracy": jnp.mean(accuracies, axis=1),
            "env_steps": jnp.zeros(accuracies.shape[0], jnp.int32),
        }
        return values, counts

    def normalizer(self, state: tuple[()]) -> Normalizer:
        """No normalisation: networks see pixels between 0 and 1."""
        del state
        return Normalizer()
