"""The command's frame: verbs, help, exit codes, and what goes to which stream."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hades as library
from experiments import running
from experiments.arguments import print_json
from experiments.commands.distill import COMMAND
from experiments.presets import PRESETS
from hades.dataset import SyntheticDataset
from tests.experiments.command import TINY, Outcome

_BEFORE_EXPLANATION = r"^(, --[\w.-]+)?\s*(\{[^}]*\}\S*|\[INT \[INT \.\.\.\]\]|STR|INT|FLOAT|PATH)?"
VERBS = ("distill", "merge", "train", "evaluate", "export", "info")
COMMANDS = (
    *((verb,) for verb in VERBS), ("baseline", "es"), ("baseline", "ppo"), ("offline", "collect"), ("offline", "teach"),
    ("offline", "distill"), ("launch", "local"), ("launch", "slurm"), ("launch", "status"),
)  # fmt: skip


def explanations(help_text: str) -> dict[str, str]:
    """The sentence below or beside each flag and positional argument of a tyro help page."""
    found: dict[str, str] = {}
    name = ""
    for line in help_text.splitlines():
        if match := re.match(r"│ (--[\w.-]+|[A-Z]+)([,\s].*)│$", line):
            name, text = match.groups()
            # The negated form and the choices stand before the explanation.
            found[name] = re.sub(_BEFORE_EXPLANATION, "", text)
        elif line.startswith("│   ") and name:
            found[name] += " " + line.strip("│ ")
    return found


def test_without_arguments_the_verbs_are_listed(hades: Callable[..., Outcome]) -> None:
    for arguments, code in (((), 2), (("--help",), 0), (("-h",), 0)):
        outcome = hades(*arguments)
        assert outcome.code == code
        assert all(verb in outcome.out for verb in VERBS)


def test_version(hades: Callable[..., Outcome]) -> None:
    assert hades("--version") == Outcome(0, library.__version__ + "\n", "")


@pytest.mark.parametrize("verb", COMMANDS, ids=" ".join)
def test_help_explains_every_flag_and_its_default_in_a_sentence(
    hades: Callable[..., Outcome], verb: tuple[str, ...]
) -> None:
    outcome = hades(*verb, "--help")
    assert outcome.code == 0
    found = explanations(outcome.out)
    assert "--json" in found
    for flag, text in found.items():
        sentence = text.partition("(default")[0].partition("(required)")[0].strip()
        assert len(sentence.split()) >= 3, (flag, text)
        assert sentence.endswith("."), (flag, text)
        assert "default" in text or "(required)" in text, (flag, text)
        # None means nothing to a reader: the sentence says what it stands for.
        assert "(default: None)" not in text or re.search("default|none|None", sentence), (flag, text)
    wanted = {
        "distill": {"--env", "--out", "--preset", "--method", "--dataset-size", "--population-size",
                    "--num-iterations", "--env-options", "--seed", "--resume", "--cloning.num-steps",
                    "--evolution.sigma"},
        "merge": {"--out", "--shared-places", "--task-one-hot", "--cloning.hidden-sizes"},
        "train": {"PATH", "--env", "--out", "--cloning.hidden-sizes"},
        "evaluate": {"PATH", "--num-inits", "--num-episodes", "--seed"},
        "info": {"PATH"},
    }  # fmt: skip
    assert wanted.get(verb[0], set()) <= set(found)


def test_unknown_verb_is_refused_with_those_that_there_are(hades: Callable[..., Outcome]) -> None:
    outcome = hades("destill")
    assert outcome.code == 2
    assert outcome.complaint.startswith(
        "hades there is no verb 'destill', expected one of distill, baseline, merge, train"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("distill", "--no-such-flag"),
        ("distill", "--method", "hades-x"),
        ("distill", "--num-generations", "many"),
        ("train",),
        ("evaluate",),
        ("info", "a", "b"),
    ],
)
def test_unknown_flags_and_wrong_types_end_with_code_2(
    hades: Callable[..., Outcome], arguments: tuple[str, ...]
) -> None:
    outcome = hades(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert outcome.err
    assert outcome.out == ""


def test_process_exits_with_the_code_and_splits_its_streams() -> None:
    command = [sys.executable, "-m", "experiments.cli", "info", "absent.npz", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "hades info: absent.npz: expected an .npz file, found nothing there\n"


def test_names_of_flags_from_version_0_1_are_accepted() -> None:
    start = ["--env", "diagnostic/match"]
    settings = running.resolve(COMMAND, [*start, "--num-generations=7", "--generations-per-call", "37"])
    assert settings.num_iterations == 7
    assert 37 in dataclasses.asdict(settings.loop).values()
    renamed = running.resolve(COMMAND, [*start, "--num_iterations=7", "--iterations-per-call", "37"])
    assert renamed == settings


def test_options_of_the_environment_are_json_passed_and_recorded(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert hades("distill", *TINY, "--env-options", "num_actions=5", "max_steps=6", "--out", out).code == 0
    config = json.loads((out / "config.json").read_text())
    flags = dict.fromkeys(("backend", "max_steps", "env_module", "observation_keys"))
    assert config["options"] == {**flags, "env_options": {"num_actions": 5, "max_steps": 6}}
    metadata = SyntheticDataset.load(out / "dataset.npz").metadata
    assert metadata is not None
    assert (metadata.env_options["num_actions"], metadata.max_episode_steps) == (5, 6)
    assert hades("distill", "--out", out, "--resume").code == 0
    other = hades("distill", "--out", out, "--resume", "--env-options", "num_actions=4")
    assert other.code == 2
    assert other.complaint.startswith(f"hades distill: --env-options: the run in {out} has {{'num_actions': 5")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--env-options", "num_actions"), "expected KEY=VALUE, got 'num_actions'"),
        (("--env-options", "a=1", "a=2"), "expected each key once, got a twice"),
        (("--env-options", "wind=3"), "has no option 'wind'"),
        (("--env-options", "noise_config.level=3"), "has no option 'noise_config.level'"),
        (("--env-options", "noise_config.=3"), "expected KEY=VALUE, got 'noise_config.=3'"),
        (("--env-options", "max_steps=3", "--max-steps", "4"), "env_options: expected no max_steps beside --max-steps"),
    ],
)
def test_bad_options_of_the_environment_are_refused(
    hades: Callable[..., Outcome], flags: tuple[str, ...], words: str
) -> None:
    outcome = hades("distill", "--env", "diagnostic/match", *flags)
    assert outcome.code == 2
    assert words in outcome.unboxed


def test_tilde_is_expanded_in_every_path(
    hades: Callable[..., Outcome], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(finished_run, tmp_path / "run")
    assert hades("info", "~/run", "--json").json["run"] == str(tmp_path / "run")
    assert hades("merge", "~/run", "~/run/dataset.npz", "--out=~/merged.npz").code == 0
    assert (tmp_path / "merged.npz").is_file()
    assert hades("distill", "--resume", "--out=~/run").code == 0
    assert not Path("~").exists()


def test_json_has_null_where_a_number_is_not_finite(capfd: pytest.CaptureFixture[str]) -> None:
    print_json({"mean": float("nan"), "rows": [{"best": (1.5, float("-inf"))}], "count": 3})
    assert json.loads(capfd.readouterr().out) == {"mean": None, "rows": [{"best": [1.5, None]}], "count": 3}


@pytest.mark.parametrize("verb", [("distill",), ("baseline", "es"), ("baseline", "ppo"), ("offline", "distill")])
def test_help_names_every_preset(hades: Callable[..., Outcome], verb: tuple[str, ...]) -> None:
    text = explanations(hades(*verb, "--help").out)["--preset"]
    names = set(re.split(r"[\s,.:]+", text))
    assert set(PRESETS[" ".join(verb)]) <= names
