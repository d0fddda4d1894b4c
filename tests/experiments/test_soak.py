"""The check of long runs: its verdicts on samples that are known, and a short run."""

from __future__ import annotations

import dataclasses

import pytest

from experiments.checks import soak
from experiments.checks.soak import Sample, SoakSettings

STEADY = [Sample(100 * tenth, 10.0 * tenth, 10.0 * tenth, 1000, 7) for tenth in range(11)]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"resident_bytes": 1060}, ["memory_growth"]),
        ({"compilations": 8}, ["compilations"]),
        ({"cpu_seconds": 100.6}, ["slowdown"]),
    ],
)
def test_what_changes_in_the_last_tenth_is_named(changes, failed):
    samples = [*STEADY[:-1], dataclasses.replace(STEADY[-1], **changes)]
    verdicts = soak.judge(SoakSettings(), samples)
    assert [name for name, verdict in verdicts.items() if not verdict["passed"]] == failed


def test_what_happens_while_a_run_warms_up_does_not_count():
    samples = [Sample(0, 0.0, 5.0, 10, 1), dataclasses.replace(STEADY[1], compilations=3), *STEADY[2:]]
    assert all(verdict["passed"] for verdict in soak.judge(SoakSettings(), samples).values())


@pytest.mark.slow
def test_a_short_run_is_watched_to_its_end(capsys):
    flags = "--flags=--env diagnostic/match --population-size 4 --iterations-per-call 50 --evaluate-every 200"
    allowed = ("--memory-growth", "1", "--slowdown", "5")
    assert soak.main(["--num-iterations", "3000", flags, *allowed]) == 0
    lines = capsys.readouterr().out
    assert "compilations: 0 (at most 0): passed" in lines
    assert "3000" in lines


def test_bad_flags_are_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        soak.main(["--num-iterations", "9"])
    assert refused.value.code == 2
    assert "num_iterations: expected at least 10, got 9" in capsys.readouterr().err
