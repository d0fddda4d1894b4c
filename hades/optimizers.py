"""Optimisers from settings: one place for inner and outer loops."""

from __future__ import annotations

from typing import Literal

OptimizerName = Literal["adam", "adamw", "sgd"]
