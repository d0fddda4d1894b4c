"""Scenes: how each environment is drawn, from its observations or from where its bodies are.

| environments | drawn from | as |
|---|---|---|
| CartPole, Acrobot, Pendulum, MountainCar of gymnax | observations | figures |
| images, such as MinAtar | observations | coloured cells |
| Brax, gymnasium's MuJoCo | poses of bodies | geometry, projected |
| all others | observations, actions | curves |
"""

from __future__ import annotations

from experiments.report.scenes import bodies, classic_control, images, signals
from experiments.report.scenes.scene import Scene
from hades.types import AnyEnvironment

__all__ = ["Scene", "scene_of"]


def scene_of(env: AnyEnvironment) -> Scene:
    """Scene of an environment, by the first of the families above that it belongs to."""
    families = (classic_control, images, bodies, signals)
    return next(scene for family in families if (scene := family.scene_of(env)) is not None)
