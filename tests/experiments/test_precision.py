"""Precision of matrix products: rounded operands against NumPy, and the flag of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from experiments.precision import MatmulPrecision, matmul_precision
from hades._run_directory import RunDirectory
from tests.experiments.command import Outcome, make_run


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    return values.astype(ml_dtypes.bfloat16).astype(np.float64)


def to_tensorfloat32(values: np.ndarray) -> np.ndarray:
    """Rounds to ten bits of mantissa, ties to even, as bits of integers."""
    bits = values.astype(np.float32).view(np.uint32)
    cut = 23 - 10
    half = (1 << (cut - 1)) - 1 + ((bits >> cut) & 1)
    return (((bits + half) >> cut) << cut).view(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    ("name", "rounded"), [("bfloat16", to_bfloat16), ("tensorfloat32", to_tensorfloat32), ("float32", np.float64)]
)
def test_products_and_their_gradients_have_rounded_operands(
    name: MatmulPrecision, rounded: Callable[[np.ndarray], np.ndarray]
) -> None:
    left, right, weights = jax.random.normal(jax.random.key(0), (3, 8, 8))
    with matmul_precision(name):
        product, backward = jax.vjp(jax.jit(jnp.matmul), left, right)
        gradient, _ = backward(weights)
    own, other, cotangent = map(rounded, map(np.asarray, (left, right, weights)))
    np.testing.assert_allclose(product, own @ other, rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradient, cotangent @ other.T, rtol=0, atol=1e-5)


def test_convolutions_have_rounded_operands() -> None:
    image, kernel = jax.random.normal(jax.random.key(0), (2, 1, 1, 3, 3))
    with matmul_precision("bfloat16"):
        found = jax.jit(lambda image, kernel: jax.lax.conv(image, kernel, (1, 1), "VALID"))(image, kernel)
    expected = np.sum(to_bfloat16(np.asarray(image)) * to_bfloat16(np.asarray(kernel)))
    np.testing.assert_allclose(found.item(), expected, rtol=0, atol=1e-5)


def test_product_that_asks_for_its_precision_keeps_it_and_nothing_stays_behind() -> None:
    left, right = jax.random.normal(jax.random.key(0), (2, 8, 8))
    exact = np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    with contextlib.suppress(KeyError), matmul_precision("bfloat16"):
        found = jax.jit(lambda left, right: jnp.matmul(left, right, precision="highest"))(left, right)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)
        raise KeyError
    with jax.default_matmul_precision("bfloat16"):
        np.testing.assert_allclose(jax.jit(jnp.matmul)(left, right), exact, rtol=0, atol=1e-5)


def test_run_has_the_precision_that_it_began_with(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    fitness = {}
    for name in ("float32", "bfloat16"):
        # Returns of continuous actions, which show a rounding.
        out = make_run(tmp_path / name, "--env", "diagnostic/target", "--matmul-precision", name)
        fitness[name] = [row["fitness_mean"] for row in RunDirectory(out).read_metrics()]
    assert fitness["float32"] != fitness["bfloat16"]
    outcome = hades("distill", "--out", str(tmp_path / "bfloat16"), "--resume", "--matmul-precision", "float32")
    assert (outcome.code, "--matmul-precision: the run in" in outcome.complaint) == (2, True)
