"""Progress: plain lines where there is no terminal, also in a notebook without widgets."""

from __future__ import annotations

import importlib.util
import io

import pytest
from rich.console import Console

from hades import _progress
from hades._progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by hand."""
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_plain_lines_come_every_ten_seconds_and_at_the_end(clock, capsys):
    with Progress(100, "iteration", done=20) as progress:
        for done in range(30, 101, 10):
            clock(4.0)
            progress.update(done, "fitness 2.5")
    assert capsys.readouterr().err.splitlines() == [
        "iteration 20/100, compiling",
        "iteration 50/100, 2.5 iterations/s, fitness 2.5, 20 s left",
        "iteration 80/100, 2.5 iterations/s, fitness 2.5, 8 s left",
        "iteration 100/100, 2.5 iterations/s, fitness 2.5, 0 s left",
    ]


def test_a_given_rate_is_the_one_that_is_told(clock, capsys):
    with Progress(1000, "update") as progress:
        clock(60.0)
        progress.update(500, rate=25_000.0)
    assert capsys.readouterr().err.splitlines()[-1] == "update 500/1000, 25k updates/s, 0 s left"


def test_counts_are_added_up_to_the_total(clock, capsys):
    with Progress(10, "transition") as progress:
        clock(1.0)
        progress.add(4)
        progress.add(40)
    assert capsys.readouterr().err.splitlines()[-1].startswith("transition 10/10, 10 transitions/s")


def test_nothing_is_written_where_it_is_off(capsys):
    with Progress(2, "iteration", enabled=False) as progress:
        progress.update(2)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar(monkeypatch):
    screen = io.StringIO()
    make = Console
    monkeypatch.setattr(_progress, "Console", lambda stderr=False: make(file=screen, force_terminal=True, width=100))
    with Progress(4, "iteration") as progress:
        progress.update(3, "fitness 2.5", rate=2.0)
    assert "iteration 3/4" in screen.getvalue()
    assert "2 iterations/s, fitness 2.5" in screen.getvalue()


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_shows_a_bar_only_with_widgets(monkeypatch, capsys, recwarn, widgets):
    make = Console
    monkeypatch.setattr(_progress, "Console", lambda stderr=False: make(force_jupyter=True))
    spec = importlib.util.find_spec("json") if widgets else None
    monkeypatch.setattr(_progress.importlib.util, "find_spec", lambda name: spec)
    assert (_progress._make_bar("iteration") is not None) == widgets
    if not widgets:
        with Progress(2, "iteration") as progress:
            progress.update(2, rate=1.0)
        assert capsys.readouterr().err.splitlines()[-1] == "iteration 2/2, 1 iterations/s, 0 s left"
    assert not recwarn.list
