"""Player of a policy that `hades export --format numpy` wrote, or of any policy file with spaces: it needs NumPy alone.

Copy this module and the file to wherever the policy shall act:

    from player import Player

    policy = Player("policy.npz")
    observation, _ = env.reset(seed=0)
    action = policy(observation)                               # the mode of its distribution, within the bounds
    action = policy(observation, np.random.default_rng(0))     # a sample of it

Observations are raw and have any batch axes in front. With running normalisation, which gathers statistics as it goes,
each row of a batch is an episode of its own, and `policy.reset()` begins them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

_PRIOR_COUNT, _VARIANCE_EPSILON = 1e-4, 1e-8  # Those of running statistics in the published runs.


def _patches(images: np.ndarray) -> np.ndarray:
    """The 3x3 neighbourhood of each pixel, `[..., height, width, channels * 9]`, zeros beyond the edge."""
    padded = np.pad(images, [(0, 0)] * (images.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(-3, -2))
    return windows.reshape(*images.shape[:-1], -1)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(np.float32(2 / np.pi)) * (x + np.float32(0.044715) * x**3)))


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
    "silu": lambda x: 0.5 * x * (1 + np.tanh(0.5 * x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}


class Player:
    """A policy as a function of NumPy observations.

    Attributes:
        metadata: Of the file: environment, architecture, how its policy was made.
        observation_shape: Shape of one observation.
        num_actions: Number of discrete actions; None where they are continuous.
        low: Lower bound of continuous actions, `[action_dim]`.
        high: Upper bound of continuous actions, `[action_dim]`.
    """

    def __init__(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Reads a policy file.

        Raises:
            ValueError: It has no spaces, or does not say its architecture.
        """
        with np.load(file, allow_pickle=False) as arrays:
            self._arrays = dict(arrays)
        spaces, self.metadata = (json.loads(str(self._arrays.pop(name, "{}"))) for name in ("spaces", "metadata"))
        if not spaces or not self.metadata.get("cloning"):
            raise ValueError("expected a policy file with spaces and an architecture, such as `hades export` writes")
        self.observation_shape = tuple(spaces["observation_shape"])
        self.num_actions = spaces["action_space"].get("num_actions")
        self.low, self.high = (np.float32(spaces["action_space"].get(side, ())) for side in ("low", "high"))
        self.reset()

    def reset(self) -> None:
        """Begins an episode in every row of the next observations."""
        self._count = _PRIOR_COUNT
        self._mean, self._variance = (np.full(self.observation_shape, start, np.float32) for start in (0, 1))

    def __call__(self, observations: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        """Actions, `[...]` int64 or `[..., action_dim]` float32: the mode, or with a generator a sample.

        Args:
            observations: Raw, `[..., *observation_shape]`.
            generator: Source of the random numbers of a sample.
        """
        parameters = self.parameters(observations)
        if self.num_actions is not None:
            logits = parameters["logits"]
            noise = 0 if generator is None else generator.gumbel(size=logits.shape)
            return np.argmax(logits + noise, axis=-1)
        inner = parameters["mean"]
        if generator is not None:
            inner = inner + np.exp(parameters["log_std"]) * generator.standard_normal(inner.shape, np.float32)
        if self.metadata["cloning"].get("action_distribution") == "tanh_gaussian":
            inner = (self.low + self.high) / 2 + (self.high - self.low) / 2 * np.tanh(inner)
        return np.clip(inner, self.low, self.high)

    def parameters(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters of the action distribution: `logits`, or `mean` and `log_std`, before tanh where there is one."""
        outputs = self._network(self._normalize(np.asarray(observations, np.float32)))
        if self.num_actions is not None:
            return {"logits": outputs}
        return {"mean": outputs, "log_std": np.broadcast_to(self._arrays["params/log_std"], outputs.shape)}

    def _normalize(self, observations: np.ndarray) -> np.ndarray:
        if self.metadata["observation_normalization"] == "fixed":
            return (observations - self._arrays["observation_mean"]) / self._arrays["observation_std"]
        if self.metadata["observation_normalization"] == "running":
            count, total, delta = self._count, self._count + 1, observations - self._mean
            self._count, self._mean = total, self._mean + delta / total
            self._variance = (self._variance + delta**2 / total) * (count / total)
            return (observations - self._mean) / np.sqrt(self._variance + np.float32(_VARIANCE_EPSILON))
        return observations

    def _network(self, observations: np.ndarray) -> np.ndarray:
        batch, settings = observations.shape[: -len(self.observation_shape)], self.metadata["cloning"]
        name = settings["activation"]
        if name == "tanh_or_relu":
            name = "relu" if self._arrays["params/torso/relu"] > 0 else "tanh"
        activation, convolves = _ACTIVATIONS[name], settings["policy"] == "cnn"
        hidden = _patches(observations) if convolves else observations.reshape(*batch, -1)
        for index in range(len(settings["hidden_sizes"]) + convolves):
            output = activation(self._dense(f"torso/Dense_{index}", hidden))
            if convolves and index == 0:
                output = output.reshape(*batch, -1)
            hidden = hidden + output if settings["policy"] == "residual_mlp" and index > 0 else output
        return self._dense("head", hidden)

    def _dense(self, layer: str, inputs: np.ndarray) -> np.ndarray:
        return inputs @ self._arrays[f"params/{layer}/kernel"] + self._arrays[f"params/{layer}/bias"]
