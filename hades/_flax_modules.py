"""Flax modules of users, linen and nnx, as parametric functions of observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hades._networks import Function
from hades.types import PyTree

if TYPE_CHECKING:
    from flax import nnx


def linen_function(module: nn.Module, shape: tuple[int, ...], outputs: int) -> Function:
    """The function of a linen module that maps observations `[batch, *shape]` to `[batch, outputs]`."""

    def init(key: jax.Array) -> dict[str, PyTree]:
        return dict(module.init(key, jnp.zeros((1, *shape))).get("params", {}))

    def apply(params: dict[str, PyTree], observations: jax.Array) -> jax.Array:
        return _batched(lambda batch: module.apply({"params": params}, batch), shape, observations)

    collections = set(jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape)))) - {"params"}
    if collections:
        raise ValueError(f"module: expected no other collection than params, got {', '.join(sorted(collections))}")
    return _checked(Function(init, apply), shape, outputs)


def nnx_function(make_module: Callable[[nnx.Rngs], nnx.Module], shape: tuple[int, ...], outputs: int) -> Function:
    """The function of an nnx module that maps observations `[batch, *shape]` to `[batch, outputs]`.

    Its parameters become nested dicts with keys of type str.
    """
    # Half a second at the start of every process, for those who bring no nnx module.
    from flax import nnx

    graph, *states = nnx.split(nnx.eval_shape(lambda: make_module(nnx.Rngs(0))), nnx.Param, ...)
    abstract, others = states
    paths = sorted(".".join(map(str, path)) for path, _ in nnx.to_flat_state(others))
    if paths:
        raise ValueError(f"make_module: expected a module whose state is nnx.Param only, got also {', '.join(paths)}")

    def init(key: jax.Array) -> dict[str, PyTree]:
        return _with_text_keys(nnx.to_pure_dict(nnx.state(make_module(nnx.Rngs(key)), nnx.Param)))

    def apply(params: dict[str, PyTree], observations: jax.Array) -> jax.Array:
        state = jax.tree.map(lambda leaf: leaf, abstract)
        nnx.replace_by_pure_dict(state, nnx.restore_int_paths(params))
        return _batched(nnx.merge(graph, state), shape, observations)

    return _checked(Function(init, apply), shape, outputs)


def _with_text_keys(tree: Any) -> Any:
    """Nested dicts whose integer keys, those of lists, are text, as in files."""
    return {str(name): _with_text_keys(value) for name, value in tree.items()} if isinstance(tree, dict) else tree


def _batched(module: Callable[[jax.Array], Any], shape: tuple[int, ...], observations: jax.Array) -> jax.Array:
    """Applies a module of one batch axis to observations `[..., *shape]`."""
    batch = observations.shape[: observations.ndim - len(shape)]
    outputs = module(observations.reshape(-1, *shape))
    return outputs.reshape(*batch, *outputs.shape[1:])


def _checked(function: Function, shape: tuple[int, ...], outputs: int) -> Function:
    params = jax.eval_shape(function.init, jax.random.key(0))
    if "log_std" in params:
        raise ValueError("module: expected no parameter named log_std, which the policy adds itself")
    found = jax.eval_shape(function.apply, params, jax.ShapeDtypeStruct((2, *shape), jnp.float32)).shape
    if found != (2, outputs):
        raise ValueError(
            f"module: expected outputs of shape (2, {outputs}) for two observations of {shape}, got {found}"
        )
    return function
