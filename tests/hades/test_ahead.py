"""Programs that are compiled ahead: those of the calls, in their order, and no others."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import envs
import hades
from envs.diagnostic import Match
from hades._ahead import Ahead, programs_of
from hades.evaluation import DatasetEvaluator, PolicyEvaluator
from hades.sharding import usable_cores
from hades.training import LoopSettings, distill
from tests.helpers import OnHost

KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 2)
LOOP = LoopSettings(iterations_per_call=2, evaluate_every=2, evaluation_inits=2, evaluation_episodes=2)
EVALUATION = ["draw_inits", "fit_over", "play_all"]


def names(run, keys=KEY[None], loop=LOOP, begins=True):
    programs = programs_of(run, keys, loop, begins)
    return [re.search(r"module @jit_(\w+)", program.as_text()).group(1) for program in programs]


def test_programs_are_those_of_the_calls_in_their_order(small_run):
    assert names(small_run) == ["initial", "advance", *EVALUATION]
    assert names(small_run, begins=False) == ["advance", *EVALUATION]
    assert names(small_run, loop=LOOP.without_evaluation()) == ["initial", "advance"]
    # A key of another kind is that of other programs.
    assert names(small_run, jax.random.key(0, impl="rbg")[None]) == ["initial", "advance", *EVALUATION]


def test_an_outcome_that_is_chosen_elsewhere_has_programs_of_its_own(small_run):
    other = dataclasses.replace(small_run, selection_env=Match(num_actions=3, max_steps=5))
    assert names(other) == ["initial", "advance", *EVALUATION, *EVALUATION]


def test_several_seeds_share_the_first_state_alone(small_run):
    assert names(small_run, KEYS) == ["initial"]


def test_a_policy_is_not_trained_before_it_plays():
    run = hades.recipes.neuroevolution(envs.make("diagnostic/target", max_steps=2), population_size=4)
    assert names(run) == ["initial", "advance", "play_all"]


def test_of_an_evaluation_in_a_simulator_on_the_host_training_alone_is_compiled_ahead():
    env = OnHost()
    policy = hades.policies.mlp(env, (4,), kernel_init="lecun_normal")
    inner = hades.behaviour_cloning(policy, num_steps=2)
    pairs = hades.SyntheticDataset(jnp.zeros((2, *env.observation_shape)), jnp.zeros((2, 1)))
    trained = hades.TrainedPolicy(hades.PolicyParams(policy.init(KEY)))
    assert len(DatasetEvaluator(env, inner, 2, 3).lower(KEY, pairs)) == 2
    assert not PolicyEvaluator(env, policy, 2, 3).lower(KEY, trained)


def test_nothing_is_compiled_where_nothing_is_jitted(small_run):
    with jax.disable_jit():
        assert not names(small_run)


class Program:
    """A program whose compilation waits for a door, or fails."""

    def __init__(self, door=None):
        self.door, self.begun = door, threading.Event()

    def compile(self):
        self.begun.set()
        if self.door is None:
            raise RuntimeError("no memory")
        self.door.wait(60)


def test_one_that_fails_keeps_no_other_from_its_turn_and_says_nothing():
    door = threading.Event()
    door.set()
    programs = [Program(), Program(door)]
    with Ahead() as ahead:
        assert ahead.is_empty
        ahead.compile(programs)
        ahead.wait()
        assert not ahead.is_empty
    assert all(program.begun.is_set() for program in programs)


def test_what_has_not_begun_when_it_ends_never_does():
    door = threading.Event()
    programs = [Program(door) for _ in range(usable_cores() + 2)]
    with Ahead() as ahead:
        ahead.compile(programs)
        assert programs[0].begun.wait(60)
    door.set()
    time.sleep(0.1)
    assert not any(program.begun.is_set() for program in programs[-2:])


def test_a_function_that_cannot_be_traced_says_so():
    def trace():
        yield jax.jit(lambda x: x + 1).lower(1.0)
        raise TypeError("no such shape")

    with Ahead() as ahead, pytest.raises(TypeError, match="no such shape"):
        ahead.compile(trace())


@pytest.fixture
def asked(monkeypatch, capsys):
    """Programs that runs ask for, of which none is compiled ahead, and seconds that each wait takes."""
    found = SimpleNamespace(programs=[], seconds=0.0, interrupts=False, shown=None)

    def wait(ahead, count=None):
        time.sleep(found.seconds)
        if found.interrupts and count is None:
            raise KeyboardInterrupt

    def compile_none(ahead, programs):
        found.shown = capsys.readouterr().err
        found.programs.extend(programs)
        ahead._programs.append(Future())

    monkeypatch.setattr(Ahead, "compile", compile_none)
    monkeypatch.setattr(Ahead, "wait", wait)
    return found


def test_a_run_that_is_done_asks_for_nothing(small_run, tmp_path, asked):
    for iterations, programs in ((2, 5), (2, 5), (4, 9)):
        distill(KEY, small_run, iterations, out=tmp_path, loop=LOOP, progress=False)
        assert len(asked.programs) == programs


def test_seconds_of_compiling_are_those_of_the_run(small_run, tmp_path, asked):
    # Once compiled, a run of no waits takes less than any wait below.
    distill(KEY, small_run, 2, loop=LOOP, progress=False)
    quick = distill(KEY, small_run, 2, loop=LOOP, progress=False).history[-1]["seconds"]
    asked.seconds = 2 * quick + 0.4
    for iterations, waits in ((2, 2), (4, 3)):
        result = distill(KEY, small_run, iterations, out=tmp_path, loop=LOOP, progress=False)
        assert result.history[-1]["seconds"] > waits * asked.seconds


def test_an_interrupt_while_programs_are_compiled_ends_a_run_that_is_not_finished(small_run, tmp_path, asked):
    asked.interrupts = True
    result = distill(KEY, small_run, 2, out=tmp_path, loop=LOOP, progress=False)
    assert not result.finished
    asked.interrupts = False
    assert distill(KEY, small_run, 2, out=tmp_path, loop=LOOP, progress=False).finished


def test_progress_begins_at_the_checkpoint_and_before_anything_is_compiled(small_run, tmp_path, asked):
    for iterations, line in ((2, "iteration 0/2, compiling\n"), (4, "iteration 2/4, compiling\n")):
        distill(KEY, small_run, iterations, out=tmp_path, loop=LOOP)
        assert asked.shown.endswith(line)


def test_a_run_that_keeps_snapshots_alone_compiles_no_evaluation_ahead(small_run):
    loop = dataclasses.replace(LOOP, evaluate_every=None, keep_snapshots=True)
    assert names(small_run, loop=loop) == ["initial", "advance"]
