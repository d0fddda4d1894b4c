"""Export as parameters of Flax: msgpack, and the module that they are parameters of as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from hades._serialization import to_dict
from hades.export._outputs import Content
from hades.policy_file import TrainedPolicy
from hades.types import Discrete


def flax_export(trained: TrainedPolicy, path: Path) -> Content:
    """Variables of a linen module, and a JSON file that says which: an `nn.Conv` where there is one, and `nn.Dense`.

    The msgpack file holds `params` of `Conv_0`, `Dense_0`, ... and `head`; beside them `log_std`, `observation_mean`
    and `observation_std` where the policy has these.

    Raises:
        ValueError: The policy has no spaces, or nothing describes its network.
    """
    trained.architecture()
    assert trained.metadata is not None  # by `architecture`
    settings, spaces = trained.metadata.require_cloning(), trained.require_spaces()
    network: Any = trained.params.network
    torso, convolves = dict(network.get("torso", {})), settings.policy == "cnn"
    activation = settings.activation
    if activation == "tanh_or_relu":
        activation = "relu" if torso.pop("relu") > 0 else "tanh"
    params = {"head": network["head"]}
    for index in range(len(torso)):
        layer = torso[f"Dense_{index}"]
        if convolves and index == 0:
            # Patches have a channel's nine places one behind the other.
            kernel = np.asarray(layer["kernel"]).reshape(spaces.observation_shape[-1], 3, 3, -1).transpose(1, 2, 0, 3)
            params["Conv_0"] = {"kernel": kernel, "bias": layer["bias"]}
        else:
            params[f"Dense_{index - convolves}"] = layer
    statistics = {"observation_mean": trained.params.normalizer.mean, "observation_std": trained.params.normalizer.std}
    others = {"log_std": network.get("log_std"), **statistics}
    variables = {"params": params, **{name: value for name, value in others.items() if value is not None}}
    discrete = isinstance(spaces.action_space, Discrete)
    module = {
        "channels": int(params["Conv_0"]["bias"].shape[0]) if convolves else None,
        "hidden_sizes": list(settings.hidden_sizes),
        "activation": activation,
        "residual": settings.policy == "residual_mlp",
        "outputs": int(params["head"]["bias"].shape[0]),
    }
    described = {
        "module": module,
        "action_distribution": "categorical" if discrete else settings.action_distribution,
        **to_dict(spaces),
        "metadata": to_dict(trained.metadata),
    }
    beside, text = path.with_name(f"{path.name}.json"), json.dumps(described, indent=1) + "\n"
    return Content({path: serialization.msgpack_serialize(variables), beside: text.encode()}, None)
