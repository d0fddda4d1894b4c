"""Offline data from Minari: datasets of whole episodes, each with the observation that follows its last action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hades._files import refusing
from hades._observations import select
from hades.offline._checks import reason
from hades.offline.transitions import OfflineDataError, Transitions, check_arrays


def load(
    dataset: str | Iterable[Any], env: str | None = None, observation_keys: Sequence[str] | None = None
) -> Transitions:
    """Reads a Minari dataset; nothing is downloaded.

    Args:
        dataset: The id of one that is on this machine, such as `"mujoco/hopper/medium-v0"`, or a `MinariDataset`, or
            episodes like those of one, with `observations` `[steps + 1, *observation_shape]`, `actions`
            `[steps, action_dim]`, `rewards`, `terminations` and `truncations`, all `[steps]`.
        env: Name of the environment; None takes that of the dataset, where it has one.
        observation_keys: Parts of observations that are dictionaries, one behind the other.

    Returns:
        The transitions of all episodes, one behind the other. An episode that ends with neither flag is marked as timed
        out, so that it does not run on into the next.

    Raises:
        ImportError: The extra minari is not installed, and `dataset` is an id.
        OfflineDataError: There is no such dataset, or an episode is not as above; one sentence that names the dataset,
            the episode and what was expected.
    """
    name = dataset if isinstance(dataset, str) else str(getattr(dataset, "id", None) or "episodes")
    episodes = _load_by_id(dataset) if isinstance(dataset, str) else dataset
    spec = getattr(episodes, "env_spec", None)
    parts: list[dict[str, np.ndarray]] = []
    try:
        with refusing(name, OfflineDataError):
            for index, episode in enumerate(episodes):
                with refusing(f"episode {index}", ValueError):
                    parts.append(_episode_arrays(episode, observation_keys))
                    for key in ("observations", "actions"):
                        shape, expected = (part[key].shape[1:] for part in (parts[-1], parts[0]))
                        if shape != expected:
                            raise ValueError(f"{key}: expected {expected} as in the first, got {shape}")
            if not parts:
                raise ValueError("expected at least one episode, got none")
    # What Minari raises where a file of the dataset is damaged.
    except (OSError, KeyError, RuntimeError) as error:
        raise OfflineDataError(f"{name}: expected a Minari dataset that can be read ({reason(error)})") from None
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Transitions.from_arrays(arrays, env or (None if spec is None else f"gymnasium/{spec.id}"))


def attributes(dataset: str | Any, observation_keys: Sequence[str] | None = None) -> dict[str, Any]:
    """Attributes of a file in D4RL's layout, of a dataset's own environment and scores.

    Args:
        dataset: Id of one that is on this machine, or a `MinariDataset`.
        observation_keys: As of `load`.

    Returns:
        `minari`, the id; `env_options`, with which the environment is made here; and `score_reference`, returns that
        score 0 and 100, where the dataset has them.

    Raises:
        ImportError: As of `load`.
        OfflineDataError: As of `load`.
    """
    found: Any = _load_by_id(dataset) if isinstance(dataset, str) else dataset
    spec, metadata = getattr(found, "env_spec", None), getattr(getattr(found, "storage", None), "metadata", {})
    options: dict[str, Any] = {}
    if spec is not None:
        options = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
        module = str(spec.entry_point).partition(".")[0].partition(":")[0]
        if module not in ("gymnasium", "gymnasium_robotics"):
            options["module"] = module
        if spec.max_episode_steps is not None:
            options["max_steps"] = int(spec.max_episode_steps)
    if observation_keys is not None:
        options["observation_keys"] = list(observation_keys)
    described: dict[str, Any] = {"minari": str(getattr(found, "id", dataset)), "env_options": options}
    low, high = (metadata.get(name) for name in ("ref_min_score", "ref_max_score"))
    if low is not None and high is not None:
        described["score_reference"] = {"random": float(low), "expert": float(high)}
    return described


def _load_by_id(dataset_id: str) -> Any:
    try:
        import minari
    except ImportError:
        raise ImportError(f"{dataset_id}: needs Minari, pip install 'hades-distillation[minari]'") from None
    try:
        return minari.load_dataset(dataset_id)
    except FileNotFoundError:
        raise OfflineDataError(
            f"{dataset_id}: expected a Minari dataset on this machine, found nothing there; "
            f"`minari list remote` names those that `minari download {dataset_id}` can fetch"
        ) from None
    # A dataset that is damaged, or an id that is none, raises almost anything.
    except Exception as error:
        raise OfflineDataError(f"{dataset_id}: expected a Minari dataset that can be read ({reason(error)})") from None


def _episode_arrays(episode: Any, observation_keys: Sequence[str] | None) -> dict[str, np.ndarray]:
    """One episode as checked arrays.

    Raises:
        ValueError: It is empty, or not what an episode should be; `"key: what was expected"`.
    """
    names = {"actions": "actions", "rewards": "rewards", "terminals": "terminations", "timeouts": "truncations"}
    arrays = {"observations": _observations(episode, observation_keys)}
    arrays |= {key: _array(name, episode) for key, name in names.items()}
    steps = len(arrays["rewards"]) if arrays["rewards"].ndim else 0
    if not steps:
        raise ValueError("expected at least one step, got none")
    observations = arrays["observations"]
    if observations.ndim < 2 or len(observations) != steps + 1:
        raise ValueError(
            f"observations: expected {steps + 1} rows, one more than rewards, got shape {observations.shape}"
        )
    checked = check_arrays(arrays | {"observations": observations[:-1], "next_observations": observations[1:]})
    checked["timeouts"][-1] |= not checked["terminals"][-1]
    return checked


def _observations(episode: Any, keys: Sequence[str] | None) -> np.ndarray:
    observations = getattr(episode, "observations", None)
    if not isinstance(observations, Mapping):
        if keys is not None:
            raise ValueError("observation_keys: expected none, as observations are no dictionaries")
        return _array("observations", episode)
    if keys is None:
        raise ValueError(
            f"observations: expected an array, got a dictionary; expected observation_keys, some of "
            f"{', '.join(map(str, observations))}"
        )
    return select(observations, keys, batch_axes=1)


def _array(name: str, episode: Any) -> np.ndarray:
    value = getattr(episode, name, None)
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise ValueError(f"{name}: expected an array, got {type(value).__name__}")
    return np.asarray(value)
