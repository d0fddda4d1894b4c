"""Settings to and from dictionaries, and the sentences about wrong ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from hades._serialization import from_dict, to_dict
from hades._validation import require_positive
from hades.inner.cloning import CloningSettings
from hades.offline.cal_ql import CalQLSettings
from hades.offline.density import FlowSettings
from hades.outer.evolution import EvolutionSettings
from hades.outer.meta_gradient import MetaGradientSettings
from hades.policies import NetworkSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.recipes.offline import OfflineSettings
from hades.rl.settings import PPOSettings
from hades.training import LoopSettings

SETTINGS = [
    CloningSettings,
    CalQLSettings,
    EvolutionSettings,
    FlowSettings,
    HadesSettings,
    LoopSettings,
    MetaGradientSettings,
    NetworkSettings,
    NeuroevolutionSettings,
    OfflineSettings,
    PPOSettings,
]


@dataclasses.dataclass(frozen=True)
class Everything:
    """One field of every kind that `from_dict` knows."""

    required: int
    switch: bool = False
    pair: tuple[float, str] = (0.0, "")
    sizes: tuple[int, ...] = ()
    either: int | str | None = None
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)
    anything: Any = None
    plain: dict = dataclasses.field(default_factory=dict)  # type: ignore[type-arg]
    annotated: Annotated[float, "a remark"] = 1.0
    choice: Literal["a", "b"] = "a"
    cloning: CloningSettings = dataclasses.field(default_factory=CloningSettings)
    maybe: CloningSettings | None = None
    file: Path | None = None


@pytest.mark.parametrize("cls", SETTINGS, ids=lambda cls: cls.__name__)
def test_defaults_survive_a_json_round_trip_and_are_hashable(cls: type) -> None:
    settings = cls()
    assert from_dict(cls, json.loads(json.dumps(to_dict(settings)))) == settings
    assert hash(settings) == hash(cls())


def test_nested_values_survive_a_json_round_trip() -> None:
    settings = Everything(
        required=3,
        switch=True,
        pair=(1.5, "x"),
        sizes=(1, 2, 3),
        either="text",
        options={"y": 2.0},
        anything=[1, {"z": None}],
        plain={"k": 1},
        annotated=2.5,
        choice="b",
        cloning=CloningSettings(hidden_sizes=(8,), max_grad_norm=None),
        maybe=CloningSettings(num_steps=7, batch_size=2),
        file=Path("folder/file"),
    )
    assert from_dict(Everything, json.loads(json.dumps(to_dict(settings)))) == settings


def test_integers_stand_for_numbers_and_lists_for_tuples() -> None:
    settings = from_dict(CloningSettings, {"learning_rate": 1, "hidden_sizes": [4, 5]})
    assert type(settings.learning_rate) is float
    assert settings.hidden_sizes == (4, 5)


def test_numpy_scalars_become_plain_numbers() -> None:
    settings = CloningSettings(learning_rate=np.float32(0.5), num_steps=np.int64(3))  # type: ignore[arg-type]
    plain = json.loads(json.dumps(to_dict(settings)))
    assert (plain["learning_rate"], plain["num_steps"]) == (0.5, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"required": None}, "required: expected an integer, got None"),
        ({"required": True}, "required: expected an integer, got True"),
        ({"required": 1.0}, "required: expected an integer, got 1.0"),
        ({"switch": 1}, "switch: expected true or false, got 1"),
        ({"pair": [1.0]}, "pair: expected 2 values, got 1"),
        ({"pair": [1.0, 2.0]}, "pair[1]: expected text, got 2.0"),
        ({"pair": "ab"}, "pair: expected a list, got 'ab'"),
        ({"sizes": [1, "x"]}, "sizes[1]: expected an integer, got 'x'"),
        ({"sizes": 3}, "sizes: expected a list, got 3"),
        ({"either": []}, "either: expected text, got []"),
        ({"options": []}, "options: expected an object, got []"),
        ({"options": {"a": "b"}}, "options.a: expected a number, got 'b'"),
        ({"plain": 1}, "plain: expected an object, got 1"),
        ({"file": 1}, "file: expected a path, got 1"),
        ({"annotated": "x"}, "annotated: expected a number, got 'x'"),
        ({"annotated": True}, "annotated: expected a number, got True"),
        ({"choice": "c"}, "choice: expected one of a, b, got 'c'"),
        ({"cloning": 5}, "cloning: expected an object, got 5"),
        ({"cloning": {"num_steps": 0}}, "cloning.num_steps: expected a number above 0, got 0"),
        ({"cloning": {"momentum": 1.0}}, "cloning.momentum: expected a number in [0, 1), got 1.0"),
        ({"cloning": {"hidden_sizes": [8, -1]}}, "cloning.hidden_sizes: expected a number above 0, got -1"),
        ({"maybe": {"batch_size": 0}}, "maybe.batch_size: expected a number above 0, got 0"),
        ({"cloning": {"max_grad_norm": float("inf")}}, "cloning.max_grad_norm: expected a number above 0, got inf"),
    ],
)
def test_wrong_values_are_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_dict(Everything, {"required": 1} | change)
    assert str(caught.value) == sentence
    with pytest.raises(ValueError) as caught:
        from_dict(Everything, {"required": 1} | change, where="run")
    assert str(caught.value) == f"run.{sentence}"


def test_missing_unknown_and_foreign() -> None:
    with pytest.raises(ValueError, match=r"^required: missing$"):
        from_dict(Everything, {})
    with pytest.raises(ValueError, match=r"^num_step: unknown, expected one of policy, .*num_steps"):
        from_dict(CloningSettings, {"num_step": 1})
    assert from_dict(CloningSettings, {"num_step": 1}, ignore_unknown=True) == CloningSettings()
    with pytest.raises(ValueError, match=r"^cloning.num_step: unknown"):
        from_dict(Everything, {"required": 1, "cloning": {"num_step": 1}}, ignore_unknown=True)
    with pytest.raises(ValueError, match=r"^CloningSettings: expected an object, got \[\]$"):
        from_dict(CloningSettings, [])


@dataclasses.dataclass(frozen=True)
class Renamed:
    """A field that old files hold under another name, beside settings that have one too."""

    num_iterations: int = dataclasses.field(default=10, metadata={"formerly": ("num_generations", "num_updates")})
    inner: Renamed | None = None


def test_fields_are_read_under_their_former_names() -> None:
    old = {"num_generations": 3, "inner": {"num_updates": 4}}
    assert from_dict(Renamed, old) == Renamed(3, Renamed(4))
    assert from_dict(Renamed, old | {"more": 1}, ignore_unknown=True) == Renamed(3, Renamed(4))
    assert "num_iterations" in to_dict(Renamed())
    with pytest.raises(ValueError, match=r"^inner.num_iterations: expected an integer, got 'x'$"):
        from_dict(Renamed, {"inner": {"num_updates": "x"}})
    with pytest.raises(ValueError, match=r"^generations: unknown, expected one of num_iterations, inner$"):
        from_dict(Renamed, {"generations": 3})


def test_integers_that_no_float_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="annotated: expected a number"):
        from_dict(Everything, {"required": 1, "annotated": 10**400})
    require_positive("steps", 10**400)


def test_long_values_are_shortened() -> None:
    with pytest.raises(ValueError) as caught:
        from_dict(Everything, {"required": "x" * 1000})
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_require_positive(value: float) -> None:
    with pytest.raises(ValueError, match="^rate: expected a number above 0, got "):
        require_positive("rate", value)
