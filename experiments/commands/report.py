"""`hades report`: a page about runs, in one file that loads nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.arguments import parse, print_json, with_folder
from experiments.report.content import Effort, page_content
from experiments.report.page import make_page
from experiments.report.subject import load_subject
from experiments.settings import EvaluationSettings
from hades._files import write_atomically
from hades._validation import require_not_negative


@dataclass(frozen=True, kw_only=True)
class ReportSettings(EvaluationSettings):
    """Makes a page about runs, or dataset, policy and teacher files: one HTML file that loads nothing.

    It has the settings and versions, the learning curve, the pairs in words of the environment, the pair whose removal
    costs most, and a film of a policy that is trained for it. Several runs are compared.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories, or dataset, policy or teacher files."""
    out: Path
    """Page to write (.html)."""
    num_inits: int = 8
    """Fresh policies that a dataset trains."""
    num_episodes: int = 1
    """Episodes of each."""
    max_removals: int = 16
    """Pairs of each dataset that are removed, one at a time, those nearest to most visited states first."""
    removal_seconds: float = 6.0
    """Seconds after which no further pair of a dataset is removed."""
    generalisation: tuple[Path, ...] = ()
    """Results of hades bench generalisation to show as heat maps, besides a generalisation.json in a run directory."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive, no run, and a page of another suffix."""
        super().__post_init__()
        self.require_positive("num_inits")
        if not self.runs:
            raise ValueError("runs: expected at least one run directory or file, got none")
        require_not_negative("max_removals", self.max_removals)
        if not self.removal_seconds > 0:
            raise ValueError(f"removal_seconds: expected a number above 0, got {self.removal_seconds}")
        if self.out.suffix not in (".html", ".htm"):
            raise ValueError(f"out: expected a name that ends in .html, got {self.out}")


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = parse(ReportSettings, "report", arguments)
    began = time.monotonic()
    subjects = [load_subject(path) for path in settings.runs]
    # A folder that cannot be made is told before the work.
    out = with_folder(settings.out)
    effort = Effort(
        settings.seed, settings.num_inits, settings.num_episodes, settings.max_removals, settings.removal_seconds
    )
    content = page_content(
        subjects, effort, settings.generalisation, lambda what: print(what, file=sys.stderr, flush=True)
    )
    page = make_page(content)
    write_atomically(out, page)
    seconds, size = time.monotonic() - began, len(page.encode())
    problems = {subject.name: subject.problem for subject in subjects if subject.problem}
    for problem in problems.values():
        print(f"no film: {problem}", file=sys.stderr)
    print(f"written to {settings.out}, {size / 1e6:.2f} MB, {seconds:.1f} s")
    if settings.json:
        runs = [str(path) for path in settings.runs]
        print_json({"out": str(settings.out), "runs": runs, "bytes": size, "seconds": seconds, "problems": problems})
    return 0
