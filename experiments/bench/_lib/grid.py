"""The grid of `hades bench generalisation`: four panels of inner loops around that of a dataset file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from experiments.bench._lib.variants import ADAM_LEARNING_RATE, SGD_LEARNING_RATE, SGD_MOMENTUM
from hades._validation import require_positive
from hades.inner.cloning import CloningSettings
from hades.policies import Activation, KernelInit

PanelName = Literal["size", "network", "optimiser", "budget"]
PANELS: tuple[PanelName, ...] = get_args(PanelName)


@dataclass(frozen=True)
class Grid:
    """Axes of a grid; the file's own value joins each axis that does not have it.

    Attributes:
        panels: Panels of the grid.
        widths: Units of each hidden layer.
        depths: Hidden layers.
        learning_rate_factors: Step sizes, as multiples of the base one of the optimiser's family.
        step_factors: Steps of cloning, as multiples of those of the file.
    """

    panels: tuple[PanelName, ...] = PANELS
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    depths: tuple[int, ...] = (1, 2, 3, 4)
    learning_rate_factors: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    step_factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)

    def __post_init__(self) -> None:
        """Refuses empty axes, and numbers that are not positive."""
        for name, values in vars(self).items():
            if not values:
                raise ValueError(f"{name}: expected at least one value, got none")
            for value in values if name != "panels" else ():
                require_positive(name, value)


class Optimiser(NamedTuple):
    """An optimiser of the grid, with the step size that its factors multiply."""

    label: str
    changes: dict[str, Any]
    base_rate: float


@dataclass(frozen=True)
class Panel:
    """A two-dimensional panel of a grid.

    Attributes:
        name: Name of the panel.
        row_label: Setting that the rows vary.
        column_label: Setting that the columns vary.
        rows: Name of each row.
        columns: Name of each column.
        cells: The inner loops, `[rows][columns]`.
    """

    name: PanelName
    row_label: str
    column_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[CloningSettings, ...], ...]


def make_panels(own: CloningSettings, grid: Grid) -> list[Panel]:
    """Panels around an inner loop; all that a panel does not vary is as in the file.

    The file's own settings stand in every panel, unless its hidden layers differ in width: then not in `size`. Learned
    step sizes belong to their optimiser and number of steps: the panels that vary these begin at the default optimiser.
    """
    builders: dict[PanelName, Callable[[CloningSettings, Grid], Panel]] = {
        "size": _size,
        "network": _network,
        "optimiser": _optimiser,
        "budget": _budget,
    }
    bases = {"optimiser": own.with_fixed_steps, "budget": own.with_fixed_steps}
    return [builders[name](bases.get(name, own), grid) for name in PANELS if name in grid.panels]


def distinct(own: CloningSettings, panels: Iterable[Panel]) -> list[CloningSettings]:
    """All inner loops once, those of one architecture together, the architecture of the file's own in front."""
    cells = dict.fromkeys(cell for panel in panels for row in panel.cells for cell in row)
    order = list(dict.fromkeys(map(architecture, (own, *cells))))
    return sorted(cells, key=lambda cell: order.index(architecture(cell)))


def architecture(cloned: CloningSettings) -> tuple[str, tuple[int, ...], Activation]:
    """Settings that inner loops share whose policies are one function of their parameters."""
    return cloned.policy, cloned.hidden_sizes, cloned.activation


def optimisers(
    own: CloningSettings,
    adam_rate: float | None = None,
    sgd_rate: float | None = None,
    momentum: float | None = None,
    momentum_rate: float | None = None,
    weight_decay: float | None = None,
) -> list[Optimiser]:
    """Adam, AdamW, SGD, and SGD with momentum.

    Args:
        own: Inner loop of the file.
        adam_rate: Base rate of Adam and AdamW; None is the file's own where it is for one of them, else ours.
        sgd_rate: Base rate of SGD; None is the file's own where it is for SGD, else ours.
        momentum: Of SGD with momentum; None is the file's own, ours where it has none.
        momentum_rate: Base rate of SGD with momentum; None is that of SGD.
        weight_decay: Of AdamW where the file is for another optimiser; None is the file's own.
    """
    adam = adam_rate or (ADAM_LEARNING_RATE if own.optimizer == "sgd" else own.learning_rate)
    sgd = sgd_rate or (own.learning_rate if own.optimizer == "sgd" else SGD_LEARNING_RATE)
    momentum = momentum or own.momentum or SGD_MOMENTUM
    is_own = own.optimizer == "adamw"
    decay = own.weight_decay if is_own or weight_decay is None else weight_decay
    adamw = {"optimizer": "adamw", "momentum": own.momentum if is_own else 0.0, "weight_decay": decay}
    # Adam takes no notice of a momentum, but the file's own cell is the file's own settings.
    return [
        Optimiser("adam", {"optimizer": "adam", "momentum": own.momentum if own.optimizer == "adam" else 0.0}, adam),
        Optimiser("adamw", adamw, adam),
        Optimiser("sgd", {"optimizer": "sgd", "momentum": 0.0}, sgd),
        Optimiser(f"sgd, mom. {momentum:g}", {"optimizer": "sgd", "momentum": momentum}, momentum_rate or sgd),
    ]


def _size(own: CloningSettings, grid: Grid) -> Panel:
    widths, depths = set(grid.widths), set(grid.depths)
    if len(set(own.hidden_sizes)) == 1:
        widths, depths = widths | {own.hidden_sizes[0]}, depths | {len(own.hidden_sizes)}
    columns, rows = sorted(widths), sorted(depths)
    cells = [[dataclasses.replace(own, hidden_sizes=(width,) * depth) for width in columns] for depth in rows]
    return _panel("size", "hidden layers", "width", rows, columns, cells)


def _network(own: CloningSettings, grid: Grid) -> Panel:
    # One that is drawn is no architecture to train.
    rows = [name for name in get_args(Activation) if name != "tanh_or_relu"]
    columns = get_args(KernelInit)
    cells = [[dataclasses.replace(own, activation=row, kernel_init=column) for column in columns] for row in rows]
    return _panel("network", "activation", "initialiser", rows, [name.replace("_", " ") for name in columns], cells)


def _optimiser(own: CloningSettings, grid: Grid) -> Panel:
    rows, factors = optimisers(own), sorted({*grid.learning_rate_factors, 1.0})
    cells = [
        [dataclasses.replace(own, learning_rate=row.base_rate * factor, **row.changes) for factor in factors]
        for row in rows
    ]
    label = f"learning rate, × {rows[0].base_rate:g} for adam and adamw, × {rows[2].base_rate:g} for sgd"
    return _panel("optimiser", "optimiser", label, [row.label for row in rows], _rounded(factors), cells)


def _budget(own: CloningSettings, grid: Grid) -> Panel:
    factors = sorted({*grid.learning_rate_factors, 1.0})
    steps = sorted({max(1, round(own.num_steps * factor)) for factor in (*grid.step_factors, 1.0)})
    cells = [
        [dataclasses.replace(own, learning_rate=own.learning_rate * factor, num_steps=count) for factor in factors]
        for count in steps
    ]
    label = f"learning rate, × {own.learning_rate:g}"
    return _panel("budget", "cloning steps", label, steps, _rounded(factors), cells)


def _rounded(factors: Sequence[float]) -> list[str]:
    return [f"{factor:g}" for factor in factors]


def _panel(
    name: PanelName,
    row_label: str,
    column_label: str,
    rows: Iterable[object],
    columns: Iterable[object],
    cells: Iterable[Iterable[CloningSettings]],
) -> Panel:
    return Panel(
        name, row_label, column_label, tuple(map(str, rows)), tuple(map(str, columns)), tuple(map(tuple, cells))
    )
