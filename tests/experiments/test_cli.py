"""The command's frame: verbs, help, exit codes, and what goes to which stream."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

import hades as library
from tests.experiments.command import Outcome

_BEFORE_EXPLANATION = r"^(, --[\w.-]+)?\s*(\{[^}]*\}\S*|\[INT \[INT \.\.\.\]\]|STR|INT|FLOAT|PATH)?"
VERBS = ("distill", "merge", "train", "evaluate", "info")


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


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_flag_in_a_sentence(hades: Callable[..., Outcome], verb: str) -> None:
    outcome = hades(verb, "--help")
    assert outcome.code == 0
    found = explanations(outcome.out)
    assert "--json" in found
    for flag, text in found.items():
        sentence = text.partition("(default")[0].partition("(required)")[0].strip()
        assert len(sentence.split()) >= 3, (flag, text)
        assert sentence.endswith("."), (flag, text)
    wanted = {
        "distill": {"--env", "--out", "--preset", "--method", "--dataset-size", "--population-size",
                    "--num-iterations", "--env-options", "--seed", "--resume", "--cloning.num-steps",
                    "--evolution.sigma"},
        "merge": {"--out", "--shared-places", "--task-one-hot", "--cloning.hidden-sizes"},
        "train": {"PATH", "--env", "--out", "--cloning.hidden-sizes"},
        "evaluate": {"PATH", "--num-inits", "--num-episodes", "--seed"},
        "info": {"PATH"},
    }  # fmt: skip
    assert wanted[verb] <= set(found)


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
