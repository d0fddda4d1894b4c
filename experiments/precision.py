"""Precision of matrix products: that of the device, or rounded to it on a CPU, which computes in float32 alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p
from jax.interpreters import mlir

MatmulPrecision = Literal["float32", "tensorfloat32", "bfloat16"]
"""Names that JAX has for precisions."""

_EXPONENT_BITS = 8
# What the names become in a product; products that ask for another precision by themselves keep it.
_MANTISSA_BITS = {lax.Precision.HIGH: 10, lax.Precision.DEFAULT: 7}


@contextlib.contextmanager
def matmul_precision(name: MatmulPrecision | None) -> Iterator[None]:
    """Context in which operands of products and convolutions of float32 have a precision; sums stay in float32.

    GPUs round bfloat16 no further than to TF32. CPUs round operands to what is asked for, so that its effect on a
    return can be measured without a GPU: it gains no time there.

    Args:
        name: The precision; None leaves that of JAX, by default TF32 on GPUs of NVIDIA.

    Example:
        >>> with matmul_precision("bfloat16"):
        ...     float(jax.jit(jnp.dot)(jnp.array([1.001]), jnp.array([1.0])))
        1.0
    """
    if name is None:
        yield
        return
    # JAX has no public way to a rule that another one is put around.
    rules = mlir._platform_specific_lowerings["cpu"]
    own = {primitive: rules[primitive] for primitive in (dot_general_p, conv_general_dilated_p)}
    try:
        for primitive, entry in own.items():
            mlir.register_lowering(primitive, partial(_lower_rounded, entry.rule), platform="cpu")
        with jax.default_matmul_precision(name):
            yield
    finally:
        rules.update(own)


def _lower_rounded(rule: Any, context: Any, *operands: Any, precision: Any, **parameters: Any) -> Sequence[Any]:
    """Lowers a product by its own rule, with operands that are rounded where its precision says so."""
    bits = _MANTISSA_BITS.get(precision[0]) if isinstance(precision, tuple) else None
    if bits is not None and all(aval.dtype == jnp.float32 for aval in context.avals_in):
        round_ = partial(lax.reduce_precision, exponent_bits=_EXPONENT_BITS, mantissa_bits=bits)
        lower = mlir.lower_fun(round_, multiple_results=False)
        operands = tuple(
            lower(context.replace(avals_in=[aval], avals_out=[aval]), operand)[0]
            for aval, operand in zip(context.avals_in, operands, strict=True)
        )
    lowered: Sequence[Any] = rule(context, *operands, precision=precision, **parameters)
    return lowered
