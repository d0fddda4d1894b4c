"""Files that are no dataset, each with words that the message about it must contain; the command's tests use it too."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, Any]


class MalformedFile(NamedTuple):
    """One way in which a file can be wrong.

    Attributes:
        name: Of the case.
        write: Writes the file (or makes the folder, or leaves the path empty).
        expected_words: What the message must contain besides the path.
    """

    name: str
    write: Callable[[Path], object]
    expected_words: tuple[str, ...]


def valid_metadata(**changes: Any) -> dict[str, Any]:
    """Metadata of a good file for continuous actions without normalisation, with `changes`."""
    cloning = {
        "policy": "mlp", "hidden_sizes": [8, 8], "activation": "tanh", "kernel_init": "orthogonal", "loss": "mse",
        "optimizer": "adam", "learning_rate": 0.005, "adam_eps": 1e-5, "momentum": 0.0, "max_grad_norm": 0.5,
        "num_steps": 20,
    }  # fmt: skip
    metadata = {
        "format": 1, "env": "brax/hopper", "env_options": {"backend": "spring"}, "max_episode_steps": 1000,
        "method": "hades-r", "observation_normalization": "none", "action_selection": "mode", "init_seed": None,
        "cloning": cloning, "created_with": {"hades": "0.1.0"}, "source": "a test", "seed": 0,
        "evaluation": {"mean": 2.0, "ci95": [1.0, 3.0], "num_inits": 2, "num_episodes": 4, "normalization_envs": None},
    }  # fmt: skip
    return metadata | changes


def valid_arrays(normalization: str = "none", discrete: bool = False) -> Arrays:
    """Arrays of a good file of 4 pairs with 11 observed numbers and 3 actions; `metadata` is still a dictionary."""
    generator = np.random.default_rng(0)
    arrays: Arrays = {"observations": generator.normal(size=(4, 11)).astype(np.float32)}
    metadata = valid_metadata(observation_normalization=normalization)
    if discrete:
        rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.25, 0.25]]
        arrays["action_probabilities"] = np.array(rows, np.float32)
        metadata["cloning"]["loss"] = "cross_entropy"
    else:
        arrays["actions"] = generator.normal(size=(4, 3)).astype(np.float32)
    if normalization == "fixed":
        arrays["observation_mean"] = generator.normal(size=11).astype(np.float32)
        arrays["observation_std"] = np.full(11, 0.5, np.float32)
    return arrays | {"metadata": metadata}


def write_file(path: Path, arrays: Arrays) -> None:
    """Writes arrays with numpy alone, the metadata as JSON where it is a dictionary."""
    metadata = arrays.get("metadata")
    if isinstance(metadata, dict):
        arrays = arrays | {"metadata": np.array(json.dumps(metadata))}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _changed(name: str, change: Callable[[Any], Any], *words: str, normalization: str = "none", discrete: bool = False,
             case: str = "") -> MalformedFile:  # fmt: skip
    """A good file in which array `name` is replaced by what `change` makes of it, or left out if that is None."""

    def write(path: Path) -> None:
        arrays = valid_arrays(normalization, discrete)
        arrays[name] = change(arrays.get(name))
        write_file(path, {key: array for key, array in arrays.items() if array is not None})

    return MalformedFile(f"{name}: {case}", write, (name, *words))


def _metadata(case: str, change: Callable[[dict[str, Any]], object], *words: str, **kind: Any) -> MalformedFile:
    """A good file whose metadata `change` has altered in place."""

    def write(path: Path) -> None:
        arrays = valid_arrays(**kind)
        change(arrays["metadata"])
        write_file(path, arrays)

    return MalformedFile(f"metadata: {case}", write, ("metadata", *words))


def _learned(case: str, step_sizes: np.ndarray | None, *words: str) -> MalformedFile:
    """A file of learned step sizes that are wrong."""

    def write(path: Path) -> None:
        arrays = valid_arrays()
        arrays["metadata"]["format"] = 2
        arrays["metadata"]["cloning"]["step_sizes"] = "learned"
        write_file(path, arrays if step_sizes is None else arrays | {"step_sizes": step_sizes})

    return MalformedFile(f"step_sizes: {case}", write, ("step_sizes", *words))


def _bytes(case: str, content: Callable[[bytes], bytes], *words: str) -> MalformedFile:
    """A file whose bytes are made from those of a good one."""

    def write(path: Path) -> None:
        write_file(path, valid_arrays())
        path.write_bytes(content(path.read_bytes()))

    return MalformedFile(case, write, words)


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda metadata: metadata.pop(name)


def _set(section: str, name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda metadata: metadata[section].update({name: value})


def _replace_by_format_7(metadata: dict[str, Any]) -> None:
    metadata.clear()
    metadata["format"] = 7


def _put(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array[index] = value
    return array


def _npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((4, 11), np.float32))


def _flipped(good: bytes) -> bytes:
    """One bit of the observations flipped, which only the checksum can tell."""
    place = good.index(b"observations.npy") + 200
    return good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]


def _foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")


_MISSING_METADATA = [
    _metadata(f"no {name}", _without(name), f"metadata.{name}", "missing") for name in valid_metadata()
]

MALFORMED_FILES: list[MalformedFile] = [
    MalformedFile("nothing at the path", lambda path: None, ("nothing there",)),
    MalformedFile("folder", lambda path: path.mkdir(), ("a folder",)),
    _bytes("empty file", lambda good: b"", "empty file"),
    _bytes("text", lambda good: b"observation,action\n1,2\n", "another format"),
    _bytes("picture", lambda good: b"\x89PNG\r\n\x1a\n" + bytes(64), "another format"),
    _bytes("pickle", lambda good: b"\x80\x04\x95\x10\x00" + bytes(16), "another format"),
    MalformedFile("one array as .npy", _npy, ("another format",)),
    MalformedFile("zip of other files", _foreign_zip, ("word/document.xml", "expected an array")),
    _bytes("truncated in the middle", lambda good: good[: len(good) // 2], "truncated"),
    _bytes("truncated at the end", lambda good: good[:-10], "truncated"),
    _bytes("flipped bit", _flipped, "observations", "damaged"),
    MalformedFile("archive without arrays", lambda path: write_file(path, {}), ("metadata", "missing", "no arrays")),
    _changed("observations", lambda old: None, "missing", "actions", case="missing"),
    _changed("metadata", lambda old: None, "missing", "observations", case="missing"),
    _changed("actions", lambda old: None, "exactly one", case="missing"),
    _changed("action_probabilities", lambda old: np.full((4, 3), 1 / 3), "exactly one", "both", case="also"),
    _changed("step_sizes", lambda old: np.ones(20, np.float32), "present", "says fixed", case="not asked for"),
    _changed("log_std", lambda old: np.zeros(2, np.float32), "expected shape (3,)", "(2,)", case="of other actions"),
    _changed("log_std", lambda old: np.zeros(3, np.float32), "only with actions", discrete=True, case="of labels"),
    _learned("missing", None, "missing", "says learned"),
    _learned("of another number of steps", np.ones(3, np.float32), "expected shape (20,)", "(3,)"),
    _learned("not finite", np.full(20, np.nan, np.float32), "finite"),
    _metadata("unknown step sizes", lambda data: data["cloning"].update(step_sizes="guessed"), "step_sizes", "guessed"),
    _changed("actions", lambda old: old.astype(object), "pickle", case="objects"),
    _changed("notes", lambda old: np.array([{}], dtype=object), "pickle", case="objects under an unknown key"),
    _changed("actions", lambda old: old[:, 0], "2 axes", "(4,)", case="one axis"),
    _changed("actions", lambda old: old[None], "2 axes", "(1, 4, 3)", case="three axes"),
    _changed("observations", lambda old: old[:, 0], "at least 2 axes", "(4,)", case="one axis"),
    _changed("observations", lambda old: np.float32(1), "at least 2 axes", "()", case="no axis"),
    _changed("actions", lambda old: old[:3], "4 rows", "3", case="shorter than observations"),
    _changed("observations", lambda old: old[:0], "at least one", "(0, 11)", case="no pairs"),
    _changed("actions", lambda old: old[:, :0], "at least one", "(4, 0)", case="no components"),
    _changed("actions", lambda old: old.astype(np.int64), "float32", "int64", case="integers"),
    _changed("actions", lambda old: old > 0, "float32", "bool", case="booleans"),
    _changed("actions", lambda old: old.astype(np.complex64), "float32", "complex64", case="complex"),
    _changed("observations", lambda old: old.astype("U8"), "float32", "<U8", case="text"),
    _changed("observations", lambda old: _put(old, (2, 3), np.nan), "finite", "nan", "[2, 3]", case="nan"),
    _changed("actions", lambda old: _put(old, (0, 1), -np.inf), "finite", "-inf", "[0, 1]", case="infinite"),
    _changed("actions", lambda old: old.astype(np.float64) * 1e300, "finite", "float32", "e+", case="too large"),
    _changed("action_probabilities", lambda old: old * 1.01, "sum to 1", "row 0", discrete=True, case="sum to 1.01"),
    _changed("action_probabilities", lambda old: old + np.array([[1, -1, 0]]), "no negative", "-1", discrete=True,
             case="negative"),
    _changed("observation_mean", lambda old: None, "missing", "fixed", normalization="fixed", case="missing"),
    _changed("observation_std", lambda old: None, "missing", "fixed", normalization="fixed", case="missing"),
    _changed("observation_std", lambda old: old[:5], "(11,)", "(5,)", normalization="fixed", case="wrong shape"),
    _changed("observation_mean", lambda old: old[None], "(11,)", "(1, 11)", normalization="fixed", case="extra axis"),
    _changed("observation_std", lambda old: old * 0, "above 0", "0.0", normalization="fixed", case="zero"),
    _changed("observation_std", lambda old: -old, "above 0", "-0.5", normalization="fixed", case="negative"),
    _changed("observation_mean", lambda old: old * np.nan, "finite", normalization="fixed", case="nan"),
    _changed("observation_mean", lambda old: np.zeros(11, np.float32), "only with fixed", "none", case="without fixed"),
    _changed("observation_std", lambda old: np.ones(11, np.float32), "only with fixed", "running",
             normalization="running", case="with running"),
    _changed("metadata", lambda old: np.array("not json {"), "JSON", case="no JSON"),
    _changed("metadata", lambda old: np.array(json.dumps(old).replace("2.0", "NaN")), "JSON", case="NaN in it"),
    _changed("metadata", lambda old: np.array("[" * 100_000), "JSON", case="nested too deeply"),
    _changed("metadata", lambda old: np.array("[1, 2]"), "an object", "[1, 2]", case="a list"),
    _changed("metadata", lambda old: np.array([json.dumps(old)]), "0-d text", "(1,)", case="one axis"),
    _changed("metadata", lambda old: np.array(json.dumps(old).encode()), "0-d text", "|S", case="bytes"),
    _changed("metadata", lambda old: np.array(1.0), "0-d text", "float64", case="number"),
    *_MISSING_METADATA,
    _metadata("format 3", lambda old: old.update(format=3), "metadata.format", "expected 1 or 2", "3"),
    _metadata("format as text", lambda old: old.update(format="1"), "metadata.format", "'1'"),
    _metadata("format true", lambda old: old.update(format=True), "metadata.format", "True"),
    _metadata("another format with other keys", _replace_by_format_7, "format", "7"),
    _metadata("env a number", lambda old: old.update(env=3), "metadata.env", "text", "3"),
    _metadata("env_options a list", lambda old: old.update(env_options=[]), "metadata.env_options", "an object"),
    _metadata("created_with a number", _set("created_with", "jax", 1), "metadata.created_with.jax", "text"),
    _metadata("no steps", lambda old: old.update(max_episode_steps=0), "metadata.max_episode_steps", "above 0"),
    _metadata("steps as text", lambda old: old.update(max_episode_steps="many"), "max_episode_steps", "an integer"),
    _metadata("unknown normalisation", lambda old: old.update(observation_normalization="batch"),
              "metadata.observation_normalization", "none, fixed, running", "batch"),
    _metadata("unknown selection", lambda old: old.update(action_selection="argmax"), "sample, mode", "argmax"),
    _metadata("init_seed as text", lambda old: old.update(init_seed="0"), "metadata.init_seed", "an integer"),
    _metadata("seed too large", lambda old: old.update(seed=10**400), "metadata.seed", "64 bits"),
    _metadata("seed null", lambda old: old.update(seed=None), "metadata.seed", "an integer", "None"),
    _metadata("cloning null", lambda old: old.update(cloning=None), "metadata.cloning", "an object", "format 1"),
    _metadata("cloning a number, format 2", lambda old: old.update(cloning=3, format=2), "metadata.cloning", "object"),
    _metadata("misspelt cloning key", _set("cloning", "learning_rat", 1.0), "metadata.cloning.learning_rat", "unknown"),
    _metadata("unknown loss", _set("cloning", "loss", "hinge"), "metadata.cloning.loss", "hinge"),
    _metadata("unknown activation", _set("cloning", "activation", "sine"), "metadata.cloning.activation", "sine"),
    _metadata("negative rate", _set("cloning", "learning_rate", -1), "metadata.cloning.learning_rate", "above 0"),
    _metadata("huge rate", _set("cloning", "learning_rate", 10**400), "metadata.cloning.learning_rate", "a number"),
    _metadata("width as text", _set("cloning", "hidden_sizes", [8, "x"]), "hidden_sizes[1]", "an integer"),
    _metadata("cross_entropy with actions", _set("cloning", "loss", "cross_entropy"), "loss", "mse", "cross_entropy"),
    _metadata("mse with probabilities", _set("cloning", "loss", "mse"), "loss", "cross_entropy", "mse", discrete=True),
    _metadata("evaluation without mean", lambda old: old["evaluation"].pop("mean"), "evaluation.mean", "missing"),
    _metadata("evaluation a number", lambda old: old.update(evaluation=2.0), "metadata.evaluation", "an object"),
    _metadata("interval of one", _set("evaluation", "ci95", [1.0]), "metadata.evaluation.ci95", "2 values"),
    _metadata("interval reversed", _set("evaluation", "ci95", [3, 1]), "metadata.evaluation.ci95", "ascending"),
    _metadata("no inits", _set("evaluation", "num_inits", 0), "metadata.evaluation.num_inits", "above 0"),
]  # fmt: skip
"""The cases; every `name` is unique."""
