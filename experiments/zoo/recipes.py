"""Commands that make the datasets of the zoo: a table by name."""

from __future__ import annotations

from dataclasses import dataclass

CLASSIC, MINATAR, BRAX, OFFLINE = "classic control", "MinAtar", "Brax", "MuJoCo, from offline data"
IMAGES = "images, accuracy"
GROUPS = (CLASSIC, MINATAR, BRAX, OFFLINE, IMAGES)
"""Kinds of environments, in the order of tables."""


@dataclass(frozen=True)
class Recipe:
    """Making and measuring of one dataset.

    Attributes:
        group: Kind of its environment, one of `GROUPS`.
        commands: Arguments of `hades`, one command after the other, in a shell where `$RUNS` is a folder for what they
            write, `$TEACHERS` the folder of published teachers, and `$HADES_IMAGES` that of folders of images. What is
            there is not made again. The last is a distillation, whose best dataset it is.
        num_inits: Fresh policies of its score.
        num_episodes: Episodes of each.
    """

    group: str
    commands: tuple[str, ...]
    num_inits: int = 32
    num_episodes: int = 8


def _classic(flags: str) -> Recipe:
    return Recipe(CLASSIC, (f"distill {flags}",))


def _minatar(flags: str) -> Recipe:
    return Recipe(MINATAR, (f"distill --method hades-pg {flags}",))


def _brax(flags: str, num_inits: int = 16, num_episodes: int = 4) -> Recipe:
    return Recipe(BRAX, (f"distill {flags}",), num_inits, num_episodes)


def _offline(body: str, num_pairs: int) -> Recipe:
    """Real MuJoCo, from data of five levels of noise of one teacher."""
    data, teacher = f"$RUNS/{body.lower()}_replay.hdf5", f"$TEACHERS/{body.lower()}-medium-replay.npz"
    collect = f"offline collect --env gymnasium/{body}-v4 --teacher {teacher} --noise 0.0 0.2 0.4 0.6 0.8"
    distill = f"offline distill --data {data} --teacher {teacher} --objective av-pbc --dataset-size {num_pairs}"
    flags = "--num-iterations 400 --evaluate-every 100"
    return Recipe(OFFLINE, (f"{collect} --num-transitions 100000 --out {data}", f"{distill} {flags}"), 32, 2)


def _images(name: str) -> Recipe:
    """One image of each class, scored on all test images."""
    return Recipe(IMAGES, (f"images distill --data $HADES_IMAGES/{name} --preset {name}",), 16, 10_000)


_TWO_MILLION = "--num-iterations 1000000 --max-env-steps 2000000 --iterations-per-call 3 --evaluate-every 3"
_CONVOLUTION = "--cloning.policy cnn --cloning.hidden-sizes 128 --entropy-coefficient 0.05"


def _annealed_over(iterations: int, every: int) -> str:
    """Iterations over which step sizes fall to zero, and how often they are evaluated."""
    return f"--num-iterations {iterations} --meta-gradient.anneal-iterations {iterations} --evaluate-every {every}"


RECIPES: dict[str, Recipe] = {
    "cartpole": _classic("--preset cartpole"),
    "acrobot": _classic("--method hades-pg --preset acrobot"),
    "pendulum": _classic("--preset pendulum --seed 1"),
    "mountaincar-continuous": _classic("--preset mountaincar"),
    "mountaincar": _classic("--preset mountaincar --env gymnax/MountainCar-v0 --dataset-size 3"),
    "breakout": _minatar(f"--preset breakout --seed 1 {_CONVOLUTION} {_annealed_over(1000, 50)}"),
    # The seeds of the other games are those that did best in experiments/results/hades_pg.
    "freeway": _minatar("--preset freeway --seed 1"),
    "spaceinvaders": _minatar("--preset spaceinvaders --seed 4"),
    "asterix": _minatar(f"--preset asterix --seed 1 {_TWO_MILLION} --meta-gradient.anneal-iterations 122"),
    "inverted-pendulum": _brax("--preset inverted-pendulum", 32),
    "hopper": _brax("--method hades-pg --preset hopper-4 --seed 2"),
    "walker2d": _brax(f"--method hades-pg --preset walker2d --dataset-size 4 {_annealed_over(1000, 40)} --seed 3"),
    "halfcheetah": _brax(f"--method hades-pg --preset halfcheetah {_annealed_over(500, 50)}"),
    "hopper-offline": _offline("Hopper", 256),
    "halfcheetah-offline": _offline("HalfCheetah", 256),
    "mnist": _images("mnist"),
    "fashion-mnist": _images("fashion"),
}
"""Recipes by name of the dataset."""
