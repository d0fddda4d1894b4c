"""The registry: families of environments, environments that users register, and what is said when a name is wrong."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any, Protocol, cast

from envs import _plugins
from hades.types import AnyEnvironment

Factory = Callable[..., AnyEnvironment]
"""Makes an environment from options, which are its keyword arguments; often the environment's class."""


class Family(Protocol):
    """A source of environments under one prefix, such as a simulator: a module or any object with these functions.

    All names are without the prefix of the family. `names` and `knows` are called for every listing and should be
    cheap: import a simulator in `make`.
    """

    def names(self) -> tuple[str, ...]:
        """The names that are listed."""
        ...

    def knows(self, name: str) -> bool:
        """Whether `make` makes this name, or explains why not; at least for all of `names`."""
        ...

    def option_names(self, name: str) -> tuple[str, ...]:
        """The options that `make` takes for a name that it knows."""
        ...

    @property
    def make(self) -> Callable[..., AnyEnvironment]:
        """`make(name, **options)`: the environment, whose `name` is the family's prefix, a slash and this name.

        Its `options` make an equal environment again. Raises `ValueError` with one sentence where it cannot be made.
        """
        ...


# Imported by the first `make` or listing: each as a module of this package.
_BUILT_IN = ("brax", "diagnostic", "gymnasium", "gymnax", "images", "playground")
_families: dict[str, Family] = {}
_factories: dict[str, Factory] = {}


def register(name: str, factory: Factory) -> None:
    """Registers an environment of your own, which `make` and every verb of the command then find.

    Registering a name again replaces the factory, so that a notebook's cell can be run twice.

    Args:
        name: `"family/name"` or a bare name. The environment must have the same `name`, by which files find it again.
        factory: Takes options as keyword arguments and returns the environment; its class, for instance.

    Raises:
        ValueError: The name is empty or that of an environment of a family, or the factory cannot be called.

    >>> from envs.diagnostic import Match
    >>> class Easy(Match):
    ...     name = "mine/easy"
    >>> register("mine/easy", Easy)
    >>> make("mine/easy", num_actions=2).action_space
    Discrete(num_actions=2)
    """
    if not isinstance(name, str) or not name.strip() or name.strip() != name or name.startswith("/"):
        raise ValueError(f"name: expected that of an environment, such as 'mine/walk', got {name!r}")
    if not callable(factory):
        raise ValueError(f"factory of {name}: expected a function that returns an environment, got {factory!r}")
    if _find_family(name) is not None:
        raise ValueError(f"name: expected one that is not taken, got {name!r}, which the family has already")
    _factories[name] = factory


def register_family(name: str, family: Family) -> None:
    """Registers a family of environments under a prefix. Registering it again replaces it.

    Args:
        name: The prefix, without a slash.
        family: A module or object as `Family` says.

    Raises:
        ValueError: The prefix is one of this package's, or a function is missing.
    """
    if not isinstance(name, str) or not name or "/" in name or name in _BUILT_IN:
        raise ValueError(f"name: expected a prefix without a slash, none of {', '.join(_BUILT_IN)}, got {name!r}")
    missing = [member for member in ("names", "knows", "option_names", "make") if not hasattr(family, member)]
    if missing:
        raise ValueError(f"family {name}: expected the functions of envs.Family, got none named {', '.join(missing)}")
    _families[name] = family


def list_environments() -> tuple[str, ...]:
    """The names that `make` takes, sorted.

    >>> "brax/hopper" in list_environments(), "gymnax/CartPole-v1" in list_environments()
    (True, True)

    Raises:
        ValueError: A plug-in cannot be loaded.
    """
    _plugins.load()
    prefixes = (*_BUILT_IN, *_families)
    listed = {f"{prefix}/{name}" for prefix in prefixes for name in _family(prefix).names()}
    return tuple(sorted(listed | set(_factories)))


def make(name: str, **options: Any) -> AnyEnvironment:
    """Makes an environment.

    Args:
        name: Family and name, such as `"brax/hopper"`, `"gymnax/CartPole-v1"`, `"gymnasium/Hopper-v4"`,
            `"playground/FingerSpin"` or `"diagnostic/match"`, or the name of a registered environment.
        options: `max_steps` for all of them, the steps after which an episode is truncated; `backend` for Brax; the
            keyword arguments of a simulator's class, the fields of gymnax's parameters, and those of Playground's
            configuration; `observation_keys` for gymnasium and Playground; `module`, which registers it, for gymnasium;
            the fields of its class for a diagnostic environment; the arguments of its factory for a registered one.

    Raises:
        ValueError: If there is no such environment or option, a value is out of range, a simulator cannot run it, or a
            plug-in cannot be loaded.

    >>> make("CartPole-v1")
    Traceback (most recent call last):
    ...
    ValueError: unknown environment 'CartPole-v1': did you mean 'gymnax/CartPole-v1'?
    """
    _plugins.load()
    if name in _factories:
        return _make_registered(name, options)
    prefix, _, bare_name = name.partition("/")
    # A module registers names that nobody knows before it is imported.
    if prefix == "gymnasium" and "module" in options:
        return _family(prefix).make(bare_name, **options)
    family = _find_family(name)
    if family is None:
        raise ValueError(f"unknown environment {name!r}: {_hint(name)}")
    _check_options(name, options, family.option_names(bare_name) if options else ())
    return family.make(bare_name, **options)


def _make_registered(name: str, options: dict[str, Any]) -> AnyEnvironment:
    factory = _factories[name]
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:
        parameters = {}.values()
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        _check_options(name, options, tuple(parameter.name for parameter in parameters))
    env = factory(**options)
    if getattr(env, "name", None) != name:
        raise ValueError(
            f"{name}: expected an environment of the name under which it is registered, by which files find it again, "
            f"got one of name {getattr(env, 'name', None)!r}"
        )
    return env


def _check_options(name: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {unknown[0]!r}: its options are {', '.join(known) or 'none'}")


def _find_family(name: str) -> Family | None:
    """The family that knows a name, if any."""
    prefix, _, bare_name = name.partition("/")
    if prefix not in _BUILT_IN and prefix not in _families:
        return None
    family = _family(prefix)
    return family if family.knows(bare_name) else None


def _family(prefix: str) -> Family:
    if prefix in _BUILT_IN:
        return cast(Family, importlib.import_module(f"envs.{prefix}"))
    return _families[prefix]


def _hint(name: str) -> str:
    """Names the environments that are spelt most like this one, whatever the family."""

    def bare(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.rpartition("/")[2].lower())

    wanted = bare(name)
    likeness = {known: difflib.SequenceMatcher(None, wanted, bare(known)).ratio() for known in list_environments()}
    near = sorted((known for known in likeness if likeness[known] >= 0.6), key=lambda known: -likeness[known])[:3]
    # Nobody who leaves out the family means a name that is only alike.
    near = [known for known in near if likeness[known] == 1] or near
    if not near:
        return f"envs.list_environments() names the {len(likeness)} that there are"
    return f"did you mean {' or '.join(repr(known) for known in near)}?"
