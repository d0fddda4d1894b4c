"""What the pictures show, read back from the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from envs import names
from experiments.curves import Curve
from experiments.pictures import curve_figure, dataset_figure, draw_curve, draw_dataset, offline_curve_figure
from experiments.pictures.canvas import PALETTE
from experiments.pictures.comparison import comparison_figure
from experiments.pictures.curve import MAX_POINTS, MAX_STRETCHES, thin
from experiments.pictures.grids import MAX_STATES, channel_colors, grid_colors
from experiments.pictures.heatmap import format_number
from hades.dataset import SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.metadata import EvaluationSummary, FileMetadata

MEAN, BEST, FRESH = "mean of the population", "best of the population", "mean dataset, fresh keys"


def history(num_iterations: int, every: int = 10) -> list[dict[str, float]]:
    rows = []
    for iteration in range(1, num_iterations + 1):
        row = {"iteration": iteration, "seconds": 20.0 + 0.5 * iteration, "fitness_worst": 1.0}
        row |= {"fitness_mean": 10.0 * iteration, "fitness_best": 12.0 * iteration}
        if iteration % every == 0:
            value = 11.0 * iteration
            row |= {"evaluation_mean": value, "evaluation_ci_low": value - 5, "evaluation_ci_high": value + 9}
        rows.append(row)
    return rows


def line(axes: Axes, label: str) -> Line2D:
    (found,) = [line for line in axes.lines if str(line.get_label()).startswith(label)]
    return found


def values(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    found = line(axes, label)
    return np.asarray(found.get_xdata(), np.float64), np.asarray(found.get_ydata(), np.float64)


def vertices(axes: Axes, index: int) -> np.ndarray:
    return np.asarray(axes.collections[index].get_paths()[0].vertices, np.float64)


def shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array(), np.float64)


def header(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def tick_texts(axes: Axes, which: str = "x") -> list[str]:
    return [label.get_text() for label in (axes.get_xticklabels() if which == "x" else axes.get_yticklabels())]


def dataset(
    observations: np.ndarray,
    actions: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    env: str = "mine/unknown",
    normalization: Any = "none",
    evaluation: EvaluationSummary | None = None,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
) -> SyntheticDataset:
    metadata = FileMetadata(
        env=env,
        max_episode_steps=10,
        method="hades-r",
        observation_normalization=normalization,
        action_selection="mode",
        cloning=CloningSettings(),
        evaluation=evaluation,
    )
    return SyntheticDataset(observations, actions, probabilities, mean, std, metadata)  # type: ignore[arg-type]


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of horizontal texts whose boxes overlap by more than a pixel, and texts that leave the figure."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw(renderer)
    texts = [text for axes in figure.axes for text in (*axes.texts, axes.title, axes.xaxis.label)] + figure.texts
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            # Matplotlib keeps ticks just outside the view, and does not draw them.
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [label for tick in ticks for label in (tick.label1, tick.label2)]
    drawn = [text for text in texts if text.get_visible() and text.get_text() and text.get_rotation() == 0]
    boxes = [text.get_window_extent(renderer).padded(-1) for text in drawn]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]
    clashes = [(drawn[i].get_text(), drawn[j].get_text()) for i, j in pairs]
    outside = [text.get_text() for text, box in zip(drawn, boxes, strict=True) if box.x1 > figure.bbox.x1 or box.x0 < 0]
    return clashes + [(text, "the border") for text in outside]


def test_curve_shows_each_series_against_iterations_and_against_seconds() -> None:
    figure = curve_figure(history(30), "A run", {"zero dataset": 90.0, "untrained policy": 20.0})
    left, right = figure.axes
    assert left.get_xlabel() == "iteration"
    assert right.get_xlabel() == "wall-clock time, compilation included [s]"
    assert left.get_ylabel().startswith("return of an episode")
    assert left.get_ylim() == right.get_ylim()
    np.testing.assert_allclose(values(left, MEAN), [np.arange(1, 31), 10 * np.arange(1, 31)])
    np.testing.assert_allclose(values(left, BEST)[1], 12 * np.arange(1, 31))
    np.testing.assert_allclose(values(left, FRESH), [(10, 20, 30), (110, 220, 330)])
    np.testing.assert_array_equal(values(right, FRESH)[0], (25, 30, 35))
    (legend,) = figure.legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert len(entries) == 5
    assert {"zero dataset: 90", "untrained policy: 20"} < set(entries)
    assert set(values(left, "zero dataset")[1]) == {90.0}
    assert "last: 330 [325, 339] at iteration 30, the highest" in header(figure)
    assert not overlapping_texts(figure)


def test_curve_may_be_drawn_against_environment_steps() -> None:
    rows = [{**row, "total_env_steps": 1000 * row["iteration"]} for row in history(30)]
    left, _ = curve_figure(rows, "A run", env_steps=True).axes
    assert left.get_xlabel() == "environment steps"
    np.testing.assert_allclose(values(left, MEAN)[0], 1000 * np.arange(1, 31))


def test_offline_curve_shows_the_objective_beside_the_returns() -> None:
    rows = history(30)
    for row in rows:
        row["fitness_mean"] = row["fitness_best"] = -1000.0 / row["iteration"]
    references = {"random real pairs": 60.0, "zero dataset": 20.0, "untrained policy": 10.0}
    figure = offline_curve_figure(rows, "A run", references, "inits", "dataset")
    left, right = figure.axes
    assert left.get_xlabel() == right.get_xlabel() == "iteration"
    assert left.get_ylabel() == "objective on offline states"
    assert right.get_ylabel().startswith("return of an episode")
    np.testing.assert_allclose(values(left, "mean of the inits"), [np.arange(1, 31), -1000 / np.arange(1, 31)])
    np.testing.assert_allclose(values(right, "dataset, fresh keys"), [(10, 20, 30), (110, 220, 330)])
    # One scale each: returns and references are on the right alone.
    assert len(left.lines) == 1
    assert left.get_ylim()[1] < 50
    assert right.get_ylim()[0] > -20
    assert set(values(right, "random real pairs")[1]) == {60.0}
    (legend,) = figure.legends
    # The best of one candidate is its mean.
    assert len(legend.get_texts()) == 5
    assert "last: 330 [325, 339] at iteration 30, the highest" in header(figure)
    assert not overlapping_texts(figure)


def test_offline_curve_of_a_population_shows_its_best() -> None:
    left, right = offline_curve_figure(history(3), "A run").axes
    np.testing.assert_allclose(values(left, BEST)[1], 12 * np.arange(1, 4))
    # Nothing has been evaluated yet.
    assert not right.lines


def test_curve_interval_reaches_from_its_low_to_its_high_end() -> None:
    figure = curve_figure(history(30), "A run")
    assert {tuple(point) for point in vertices(figure.axes[0], 0)} >= {(10, 105), (10, 119), (30, 325), (30, 339)}


def test_curve_names_the_best_evaluation_of_a_run_that_collapsed() -> None:
    rows = history(30)
    rows[19]["evaluation_mean"] = 2028.0
    rows[29]["evaluation_mean"] = 267.0
    assert "last: 267" in header(curve_figure(rows, "A run"))
    assert "highest: 2,028" in header(curve_figure(rows, "A run"))


@pytest.mark.parametrize(
    ("seconds", "unit", "place"), [(100.0, "s", 100.0), (600.0, "min", 10.0), (36000.0, "h", 10.0)]
)
def test_curve_chooses_the_unit_of_time(seconds: float, unit: str, place: float) -> None:
    right = curve_figure([{"iteration": 1, "seconds": seconds, "fitness_mean": 1.0}], "A run").axes[1]
    assert right.get_xlabel().endswith(f"[{unit}]")
    assert values(right, MEAN)[0] == pytest.approx(place)


def test_curve_of_one_iteration_is_marked_and_has_no_repeated_ticks() -> None:
    figure = curve_figure(history(1, every=1), "A run")
    figure.draw_without_rendering()
    left = figure.axes[0]
    assert line(left, MEAN).get_marker() == "o"
    assert len(set(tick_texts(left))) == len(tick_texts(left))
    low, high = left.get_ylim()
    assert low < 6 < 20 < high


def learning_curve(env_steps: list[float], seconds: list[float], returns: list[float]) -> Curve:
    summary = {"evaluations": {"untrained policy": {"mean": 20.0}}}
    return Curve(np.array(env_steps), np.array(seconds), np.array(returns), summary)


def test_methods_that_were_evaluated_once_are_marked_where_all_of_their_runs_are() -> None:
    long = [learning_curve([1e5, 2e5], [1.0, 2.0], [50.0, 80.0])]
    once = [learning_curve([1e5], [1.0 + index], [30.0 + index]) for index in range(3)]
    figure = comparison_figure({"long": long, "once": once}, "title", {}, "note")
    for axes, place in zip(figure.axes[:2], (1e5, 3.0), strict=True):
        (marked,) = [drawn for drawn in axes.get_lines() if drawn.get_marker() == "o"]
        np.testing.assert_allclose(marked.get_xydata(), [[place, 31.0]])


def test_intervals_of_two_runs_do_not_flatten_what_they_returned() -> None:
    two = [learning_curve([1e5, 2e5], [1.0, 2.0], [20.0, final]) for final in (300.0, 500.0)]
    for axes in comparison_figure({"two": two}, "title", {"untrained policy": 20.0}, "note").axes[:2]:
        np.testing.assert_allclose(axes.get_ylim(), [20 - 0.3 * 480, 500 + 0.3 * 480])


def test_curve_leaves_gaps_and_does_not_let_blow_ups_flatten_the_rest() -> None:
    rows: list[dict[str, Any]] = list(history(200))
    rows[50]["fitness_mean"] = float("nan")
    rows[51]["fitness_mean"] = None
    rows[52]["fitness_mean"] = float("inf")
    rows[99]["fitness_best"] = 1e30
    rows[99]["non_finite"] = 3
    figure = curve_figure(rows, "A run")
    assert np.flatnonzero(np.isnan(values(figure.axes[0], MEAN)[1])).tolist() == [50, 51, 52]
    assert figure.axes[0].get_ylim()[1] < 6000
    assert "3 non-finite returns, in 1 of 200 logged iterations" in header(figure)
    assert "1 values lie outside the picture" in header(figure)


def test_curve_keeps_a_steep_start_and_a_distant_reference_in_the_picture() -> None:
    rows = [
        {"iteration": i, "seconds": i, "fitness_mean": -1600.0 if i < 3 else -150.0 - i % 50} for i in range(1, 500)
    ]
    low, high = curve_figure(rows, "A run", {"ceiling": 900.0}).axes[0].get_ylim()
    assert low < -1600
    assert high > 900


def test_curve_of_a_very_long_run_is_thinned_to_median_and_range() -> None:
    rows = history(40_000, every=5)
    rows[12_345]["fitness_best"] = 10 * 480_000.0
    left = curve_figure(rows, "A run").axes[0]
    assert len(values(left, MEAN)[0]) == MAX_STRETCHES
    assert len(values(left, FRESH)[0]) <= MAX_POINTS + 2
    assert values(left, MEAN)[1][0] == 505.0
    tops = [vertices(left, index)[:, 1].max() for index in range(len(left.collections))]
    assert 4_800_000.0 in tops


def test_thin_keeps_both_ends_and_every_extreme() -> None:
    wave = np.sin(np.arange(10_000) / 7)
    wave[4321], wave[77] = 5.0, np.nan
    kept = thin(wave, 300)
    assert len(kept) <= 302
    assert {0, 4321, 9999} <= set(kept.tolist())
    assert np.all(np.diff(kept) > 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "in its 0 rows, got none"),
        ([{"iteration": 1, "seconds": 1.0, "fitness_mean": float("nan")}], "expected a finite fitness or evaluation"),
        (
            [{"iteration": 1, "fitness_mean": 1.0}],
            r"history\[0\]: expected the key seconds, got iteration, fitness_mean",
        ),
    ],
)
def test_curve_refuses_a_history_without_anything_to_draw(rows: list[dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curve_figure(rows, "A run")


def test_heat_map_prints_environment_units_and_colours_policy_space() -> None:
    rng = np.random.default_rng(0)
    observations, probabilities = rng.normal(size=(2, 4)), np.array([[0.25, 0.75], [1.0, 0.0]])
    mean, std = np.array([1.0, 2.0, 3.0, -4.0]), np.array([0.5, 1.0, 2.0, 10.0])
    score = EvaluationSummary(mean=1742.1, ci95=(1701.0, 1780.2), num_inits=32, num_episodes=8)
    name = "gymnax/CartPole-v1"
    figure = dataset_figure(dataset(observations, None, probabilities, name, "fixed", score, mean, std))
    seen, _, chosen, scale = figure.axes
    np.testing.assert_array_equal(shown(seen), observations)
    printed = [float(text.get_text().replace("−", "-")) for text in seen.texts]
    np.testing.assert_allclose(printed, (observations * std + mean).ravel(), rtol=0.01, atol=0.0051)
    reach = np.abs(observations).max()
    assert seen.images[0].get_clim() == (-reach, reach)
    assert tick_texts(seen) == list(names.observation_names(name) or ())
    assert tick_texts(chosen) == list(names.action_names(name) or ())
    assert tick_texts(seen, "y") == ["0", "1"]
    assert [text.get_text() for text in chosen.texts] == ["0.25", "0.75", "1.00", "0.00"]
    assert chosen.images[0].get_clim() == (0.0, 1.0)
    assert scale.get_xlabel() == "probability"
    assert f"{name}: 2 synthetic pairs by hades-r" in header(figure)
    assert "1,742.1, 95 % interval [1,701, 1,780.2] (32 inits × 8 episodes)" in header(figure)
    assert "Numbers: environment units (de-normalised" in header(figure)
    assert not overlapping_texts(figure)


@pytest.mark.parametrize(
    ("normalization", "note"),
    [
        ("none", "Numbers and colours: environment units"),
        ("running", "Numbers and colours: policy space (normalised; a dataset does not hold running"),
    ],
)
def test_heat_map_says_which_units_it_prints(normalization: str, note: str) -> None:
    drawn = dataset(np.full((1, 2), 1.5), np.full((1, 1), -12.34), normalization=normalization)
    figure = dataset_figure(drawn)
    seen, _, chosen, _ = figure.axes
    assert note in header(figure).replace("\n", " ")
    assert [text.get_text() for text in seen.texts] == ["1.50", "1.50"]
    assert [text.get_text() for text in chosen.texts] == ["−12.3"]
    assert tick_texts(seen) == ["obs 0", "obs 1"]
    assert tick_texts(chosen) == ["action 0"]
    assert "1 synthetic pair by" in header(figure)
    assert "not evaluated" in header(figure)


@pytest.mark.parametrize(
    ("pairs", "width", "actions", "prints"), [(32, 24, 6, True), (33, 3, 1, False), (8, 27, 8, False)]
)
def test_heat_map_prints_numbers_only_where_there_is_room(pairs: int, width: int, actions: int, prints: bool) -> None:
    drawn = dataset(np.ones((pairs, width)), np.ones((pairs, actions)))
    seen, _, chosen, _ = dataset_figure(drawn).axes
    assert len(seen.texts) == (pairs * width if prints else 0)
    assert len(chosen.texts) == (pairs * actions if prints else 0)


@pytest.mark.parametrize(("pairs", "width", "actions"), [(16, 3, 1), (64, 27, 8), (256, 244, 17)])
def test_heat_map_labels_stay_legible(pairs: int, width: int, actions: int) -> None:
    rng = np.random.default_rng(0)
    figure = dataset_figure(dataset(rng.normal(size=(pairs, width)), rng.normal(size=(pairs, actions))))
    assert not overlapping_texts(figure)
    inches = figure.get_size_inches()
    assert max(inches) < 22
    for axes in (figure.axes[0], figure.axes[2]):
        places = axes.get_xticks()
        pitch = axes.get_position().width * inches[0] / shown(axes).shape[1]
        assert np.diff(places).min(initial=10) * pitch > 0.13


def test_heat_map_numbers_are_replaced_where_the_names_do_not_fit() -> None:
    seen = dataset_figure(dataset(np.ones((2, 5)), np.ones((2, 1)), env="gymnax/CartPole-v1")).axes[0]
    assert tick_texts(seen) == [f"obs {index}" for index in range(5)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (0.004, "0.004"),
        (-1.239, "−1.24"),
        (99.96, "100"),
        (-2e-5, "−2e−5"),
        (3.2e6, "3e6"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert format_number(value) == text


def test_grid_colours_show_the_strongest_channel_as_opaque_as_it_is_strong() -> None:
    state = np.array([[[0.0, 7.0, 2.0], [0.5, 0.2, 0.1], [-3.0, -1.0, -2.0]]])
    colors = grid_colors(state)
    first, second = (np.array([int(PALETTE[i][j : j + 2], 16) for j in (1, 3, 5)]) / 255 for i in (0, 1))
    np.testing.assert_allclose(colors[0, 0], second)
    np.testing.assert_allclose(colors[0, 1], 0.5 + 0.5 * first)
    np.testing.assert_allclose(colors[0, 2], 1.0)


@pytest.mark.parametrize("count", [1, 4, 10, 16])
def test_channels_have_distinct_colours(count: int) -> None:
    assert len(set(channel_colors(count))) == count


def test_images_are_denormalised_and_shown_with_their_actions() -> None:
    name = "gymnax/Breakout-MinAtar"
    states = (np.random.default_rng(0).random((5, 10, 10, 4)) < 0.1).astype(float)
    mean, std = np.full((10, 10, 4), 0.25), np.full((10, 10, 4), 0.5)
    probabilities = np.array([[0.1, 0.7, 0.2]] * 5)
    figure = dataset_figure(dataset((states - mean) / std, None, probabilities, name, "fixed", None, mean, std))
    assert len(figure.axes) == 10
    for index in range(5):
        np.testing.assert_allclose(shown(figure.axes[2 * index]), grid_colors(states[index]))
        assert figure.axes[2 * index].get_title(loc="left") == f"pair {index}"
    bars = figure.axes[1]
    actions = names.action_names(name) or ()
    assert tick_texts(bars) == list(actions)
    assert bars.get_xlabel() == f"{actions[1]} 0.70"
    np.testing.assert_allclose([patch.get_height() for patch in bars.patches], probabilities[0])  # type: ignore[attr-defined]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(names.channel_names(name) or ())
    assert "environment units (de-normalised" in header(figure)
    assert not overlapping_texts(figure)


def test_images_beyond_the_first_are_left_off_and_said_so() -> None:
    pairs = MAX_STATES + 6
    figure = dataset_figure(dataset(np.zeros((pairs, 3, 3)), np.ones((pairs, 2)), normalization="running"))
    assert len(figure.axes) == 2 * MAX_STATES
    assert not figure.legends
    assert f"The first {MAX_STATES} of {pairs} pairs" in header(figure)
    assert "Bars: action 0, action 1; between −1 and 1" in header(figure)


def test_a_dataset_without_metadata_is_drawn() -> None:
    figure = dataset_figure(SyntheticDataset(np.ones((1, 2)), np.ones((1, 1))))  # type: ignore[arg-type]
    assert "unknown environment: 1 synthetic pair" in header(figure)
    assert "policy space (the dataset holds no statistics)" in header(figure)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.ones((2, 3)), None, None), "exactly one of actions and action_probabilities"),
        ((np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 1))), "exactly one of actions and action_probabilities"),
        ((np.ones((2, 3)), np.ones((3, 1)), None), r"got shapes \(2, 3\) and \(3, 1\)"),
        ((np.ones((0, 3)), np.ones((0, 1)), None), "at least one pair"),
    ],
)
def test_datasets_that_are_not_pairs_are_refused(arrays: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset_figure(dataset(*arrays))


def test_files_are_whole_pictures_of_the_figures_size(tmp_path: Path) -> None:
    drawn = dataset(np.ones((2, 3)), np.ones((2, 1)))
    draw_dataset(drawn, tmp_path / "dataset.png")
    draw_curve(history(3), str(tmp_path / "curve.png"), "Costs $5_000, not $x^2$")
    draw_curve(history(3), tmp_path / "curve.svg", "A run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "curve.svg", "dataset.png"]
    width, height = dataset_figure(drawn).get_size_inches()
    pixels = matplotlib.image.imread(tmp_path / "dataset.png")
    assert pixels.shape[:2] == pytest.approx((height * 130, width * 130), abs=1)
    assert (tmp_path / "curve.svg").read_text().rstrip().endswith("</svg>")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "curve.nonsense"
    path.write_text("old")
    with pytest.raises(ValueError, match="nonsense"):
        draw_curve(history(3), path, "A run")
    assert [found.name for found in tmp_path.iterdir()] == ["curve.nonsense"]
    assert path.read_text() == "old"
    with pytest.raises(FileNotFoundError, match=r"no such folder to write curve\.png into"):
        draw_curve(history(3), tmp_path / "absent" / "curve.png", "A run")


def test_pictures_touch_no_global_state(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw_curve(history(3), tmp_path / "curve.png", "A run")
    draw_dataset(dataset(np.ones((1, 2, 2)), np.ones((1, 1))), tmp_path / "dataset.png")
    assert dict(matplotlib.rcParams) == before
    # Where pyplot would keep them.
    assert not Gcf.figs
