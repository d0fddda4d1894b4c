"""Export as an ONNX model, by jax2onnx, played by onnxruntime."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hades._serialization import to_dict
from hades.export._outputs import Content, outputs_of
from hades.policy_file import TrainedPolicy

_INPUT = "observation"


def onnx_export(trained: TrainedPolicy, path: Path) -> Content:
    """A model with the batch as a dynamic axis, and the metadata and spaces of the policy in its properties.

    Raises:
        ValueError: A package is missing, normalisation is running, or the policy has no spaces or architecture.
    """
    if trained.params.normalizer.kind == "running":
        raise ValueError(
            "expected no or fixed normalisation of observations, got a running one, whose statistics change as the "
            "policy plays; --format numpy keeps them"
        )
    outputs, shape = outputs_of(trained), trained.require_spaces().observation_shape
    try:
        with _quiet():
            import onnxruntime
            from jax2onnx import to_onnx
    except ModuleNotFoundError as error:
        raise ValueError(f"onnx needs {error.name}: pip install 'hades-distillation[onnx]'") from None
    names = sorted(jax.eval_shape(outputs, jax.ShapeDtypeStruct((1, *shape), np.float32)))

    def in_order(observations: jax.Array) -> tuple[jax.Array, ...]:
        found = outputs(observations)
        return tuple(found[name] for name in names)

    # Functions within, such as relu, are traced as what they compute: jax2onnx's calls of them do not suit every JAX.
    with _quiet(), jax.disable_jit():
        model = to_onnx(in_order, [("batch", *shape)], model_name="policy", input_names=[_INPUT], output_names=names)
    _describe(model, trained)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def play(observations: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {_INPUT: observations}), strict=True))

    return Content({path: data}, play)


def _describe(model: Any, trained: TrainedPolicy) -> None:
    for name, value in (("metadata", trained.metadata), ("spaces", trained.spaces)):
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(to_dict(value))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences jax2onnx on its plug-ins for libraries that this JAX does not suit, and on shapes that it leaves out."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
