"""A run as pure functions of keys and states: built by recipes, driven by the host loop of `hades.training`."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import jax
import numpy as np
from flax import struct

from hades._environment_contract import is_key
from hades._serialization import to_dict
from hades.dataset import SyntheticDataset
from hades.metadata import EvaluationSummary
from hades.offline.teacher import Teacher
from hades.policy_file import TrainedPolicy
from hades.types import Metrics, PyTree

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from hades.evaluation import Evaluation

Outcome = TypeVar("Outcome", SyntheticDataset, TrainedPolicy, Teacher)
"""Result of a run, with `save` and `load`: a distillation makes a dataset, a baseline a policy, Cal-QL a teacher."""

OUTCOMES: dict[str, type[SyntheticDataset] | type[TrainedPolicy] | type[Teacher]] = {
    "dataset": SyntheticDataset,
    "policy": TrainedPolicy,
    "teacher": Teacher,
}
"""Kinds of outcome by the name that they have in run directories."""


class DivergedError(ValueError):
    """A run's outcome is no longer finite; the message says since which iteration, and where the last good one is."""


class Evaluator(Protocol):
    """Compiled evaluation on fresh keys, such as `hades.evaluation.DatasetEvaluator`."""

    def __call__(self, key: jax.Array, outcome: Any, /) -> Evaluation:
        """Returns of an outcome."""
        ...

    def references(self, key: jax.Array, outcome: Any, /) -> dict[str, Evaluation]:
        """Returns of policies that have learned nothing, by name."""
        ...


@struct.dataclass
class RunState:
    """State of a run at the end of an iteration; saving it is saving the run.

    Attributes:
        key: The run's key, the same all the way; iteration i uses `hades.keys.iteration_key(key, i)`.
        iteration: Finished iterations, `[]` int32.
        outer: State of the outer loop, or of the algorithm.
        objective: State of the objective; `()` where there is none.
    """

    key: jax.Array
    iteration: jax.Array
    outer: PyTree
    objective: PyTree = ()


class Run(Generic[Outcome]):
    """One distillation, baseline or teacher. Its methods are pure: jit them, vmap them over seeds, scan them, or loop.

    A run is a pytree whose leaves are its large arrays, such as offline data. `jax.jit(run.step)(state)` copies them
    into the compiled program; a function of the run, such as `hades.training.advance(run, state, ...)`, takes them as
    arguments, and finds its program again for every run of equal parts.

    Attributes:
        kind: Kind of the outcome, a key of `OUTCOMES`.
        method: Name of the method in files, such as `"hades-r"`.
        env: Environment that outcomes are evaluated in; None where there is none.
        settings: Static settings of the recipe, a frozen dataclass; None for a run that was put together by hand.
        mesh: Devices that an iteration is spread over.

    Example:
        >>> import envs, hades, jax
        >>> run = hades.recipes.hades_r(envs.make("diagnostic/match"), dataset_size=2, population_size=8)
        >>> state = run.init(jax.random.key(0))
        >>> state, metrics = jax.jit(run.step)(state)
        >>> int(state.iteration), metrics["fitness_mean"].shape
        (1, ())
    """

    kind: ClassVar[str]
    former_names: ClassVar[Mapping[str, str]] = {"iteration": "generation", "objective": "normalizer"}
    """Names of a state's fields in checkpoints of version 0.1, by prefixes of their paths."""
    dropped_names: ClassVar[tuple[str, ...]] = ("normalizer",)
    """Prefixes of paths in those checkpoints that states no longer hold."""
    finite_metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics that are finite as long as the run has not diverged, besides the outcome itself."""
    method: str
    env: Any
    settings: Any
    mesh: Mesh | None

    def __init_subclass__(cls) -> None:
        """Registers subclasses, which are dataclasses, as pytrees."""
        jax.tree_util.register_pytree_node(cls, _flatten, lambda aux, leaves: _unflatten(cls, aux, leaves))

    def init(self, key: jax.Array) -> RunState:
        """Draws the state before the first iteration."""
        raise NotImplementedError

    def step(self, state: RunState) -> tuple[RunState, Metrics]:
        """One iteration.

        Returns:
            The new state, and whatever metrics the method reports: outer loops and PPO the scalars `fitness_mean`,
            `fitness_best`, `fitness_worst` and `non_finite`; `env_steps` counts environment steps. Integers are counts,
            of any shape, whose sum is logged; all others are scalars, whose mean is.
        """
        raise NotImplementedError

    def outcome(self, state: RunState) -> Outcome:
        """Outcome of the iterations so far, without metadata; of an evolution the mean of the search distribution."""
        raise NotImplementedError

    def describe(self, outcome: Outcome, seed: int, evaluation: EvaluationSummary | None = None) -> Outcome:
        """Outcome with the metadata that its file needs."""
        raise NotImplementedError

    def make_evaluator(self, num_inits: int, num_episodes: int) -> Evaluator:
        """Evaluation on fresh keys: a dataset trains `num_inits` policies, a policy plays as many episodes as those.

        Raises:
            ValueError: There is no environment, or a number does not suit it.
        """
        raise NotImplementedError

    def make_selector(self, num_inits: int, num_episodes: int) -> Evaluator:
        """Evaluation that the best outcome is chosen by on the way; `make_evaluator` reports the chosen one.

        Raises:
            ValueError: As `make_evaluator`.
        """
        return self.make_evaluator(num_inits, num_episodes)

    def config(self) -> dict[str, Any]:
        """Part of a run directory's `config.json` that must be the same for the run to go on."""
        env = self.env
        return {
            "method": self.method,
            "env": env and env.name,
            "env_options": env and describe(env.options),
            # Architectures and optimisers made by hand are functions, and keep what they were made with to themselves.
            **({"functions": describe_functions(self)} if self.settings is None else {}),
            "settings": describe(self) if self.settings is None else to_dict(self.settings),
            "arrays": checksum(jax.tree.leaves(self)),
        }

    def status(self, row: Mapping[str, Any]) -> str:
        """Line of a progress report for a row of metrics."""
        text = f"fitness {row['fitness_mean']:.4g}"
        # A single candidate is its own best.
        if row["fitness_best"] != row["fitness_mean"]:
            text += f" (best {row['fitness_best']:.4g})"
        if "approx_kl" in row:
            # A method that leaves its limit from the start learns nothing.
            text += f", KL {row['approx_kl']:.2g}"
        if row["non_finite"]:
            text += f", {row['non_finite']} not finite"
        return text + evaluation_status(row)

    @property
    def dataset(self) -> Any:
        """`outcome`, of a distillation. Raises `AttributeError` for another run."""
        return self._outcome_of("dataset")

    @property
    def policy(self) -> Any:
        """`outcome`, of a baseline. Raises `AttributeError` for another run."""
        return self._outcome_of("policy")

    def _outcome_of(self, kind: str) -> Any:
        if self.kind != kind:
            raise AttributeError(f"this run makes a {self.kind}, not a {kind}")
        return self.outcome


def evaluation_status(row: Mapping[str, Any]) -> str:
    """Part of a status line that tells an evaluation on fresh keys, empty where the row has none."""
    mean = row.get("evaluation_mean")
    return "" if mean is None else f", fresh keys {mean:.4g}"


def describe(value: Any) -> Any:
    """A part of a run as JSON can hold it: fields of dataclasses, names of functions, shapes of arrays.

    Example:
        >>> describe({"shape": (2, 3), "function": len})
        {'shape': [2, 3], 'function': 'builtins.len'}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__qualname__, **{name: describe(item) for name, item in _fields(value).items()}}
    if _is_array(value):
        return f"{value.dtype}{list(value.shape)}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__qualname__


def describe_functions(value: Any) -> Any:
    """Values that the functions in a part of a run were made with: defaults, and variables of functions around them.

    Lists and other containers that a function closes over may change from call to call, and are known by their type.

    Returns:
        Mappings by field, place and variable down to each function that was made with anything; None without any.

    Example:
        >>> def scaled(factor):
        ...     return lambda x: factor * x
        >>> describe_functions({"rule": scaled(2)})
        {'rule': {'factor': 2}}
    """
    return _described_functions(value, frozenset())


def _described_functions(value: Any, within: frozenset[int]) -> Any:
    if id(value) in within:
        # A function that calls itself.
        return None
    within |= {id(value)}
    value = inspect.unwrap(value) if callable(value) else value
    if isinstance(value, FunctionType):
        found = {name: _variable(item, within) for name, item in _variables(value).items()}
    elif isinstance(value, partial):
        found = {name: _variable(item, within) for name, item in value.keywords.items()}
        found |= {f"argument {index}": _variable(item, within) for index, item in enumerate(value.args)}
        found["function"] = _described_functions(value.func, within)
    else:
        found = {name: _described_functions(item, within) for name, item in _parts(value).items()}
    return {name: item for name, item in found.items() if item is not None} or None


def _variable(value: Any, within: frozenset[int]) -> Any:
    """A variable of a function, with its value and what the functions in it were made with."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, jax.Array)) and not isinstance(value, jax.core.Tracer):
        content = jax.random.key_data(value) if is_key(value) else value
        return f"{describe(value)} of checksum {checksum([content])}"
    if isinstance(value, (list, set, Mapping)):
        return type(value).__qualname__
    parts = _parts(value)
    if not parts:
        inner = _described_functions(value, within)
        return describe(value) if inner is None else {"function": describe(value), **inner}
    return {name: _variable(item, within | {id(value)}) for name, item in parts.items() if id(item) not in within}


def _parts(value: Any) -> dict[str, Any]:
    """Fields of a dataclass or named tuple, places of a tuple, and entries of a mapping."""
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else str(describe(name)): item for name, item in value.items()}
    if isinstance(value, tuple):
        return value._asdict() if hasattr(value, "_asdict") else {str(index): item for index, item in enumerate(value)}
    return _fields(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else {}


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _variables(function: FunctionType) -> dict[str, Any]:
    """Variables that a function closes over, and defaults of its arguments."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][-len(defaults) :] if defaults else ()
    found = dict(zip(names, defaults, strict=True)) | (function.__kwdefaults__ or {})
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        # A cell is empty where its variable was never set.
        with contextlib.suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def checksum(leaves: Sequence[Any]) -> str | None:
    """CRC-32 of arrays, None where there is none."""
    total = 0
    for leaf in leaves:
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return f"{total:08x}" if leaves else None


class _Static:
    """Everything of a run but its arrays: equal where all parts are, so that compiled programs are found again."""

    def __init__(self, tree: Any, leaves: tuple[Any, ...]) -> None:
        self.tree, self.leaves = tree, leaves

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self.tree == other.tree and self.leaves == other.leaves

    def __hash__(self) -> int:
        # Parts of a user's own need not be hashable; equality decides.
        try:
            return hash((self.tree, self.leaves))
        except TypeError:
            return len(self.leaves)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)) or leaf is _PLACE


_PLACE = object()


def _flatten(run: Any) -> tuple[Any, _Static]:
    if "_flattened" in vars(run):
        # JAX puts anything in the place of arrays, such as descriptions of arguments: they stay leaves.
        return vars(run)["_flattened"]
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    leaves, tree = jax.tree.flatten(fields)
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    return arrays, _Static(tree, tuple(_PLACE if _is_array(leaf) else leaf for leaf in leaves))


def _unflatten(cls: type, static: _Static, leaves: Any) -> Any:
    leaves = tuple(leaves)
    arrays = iter(leaves)
    fields = jax.tree.unflatten(static.tree, [next(arrays) if leaf is _PLACE else leaf for leaf in static.leaves])
    run: Any = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(run, name, value)
    object.__setattr__(run, "_flattened", (leaves, static))
    return run
