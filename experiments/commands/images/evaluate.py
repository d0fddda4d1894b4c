"""`hades images evaluate`: accuracies of networks that are trained on synthetic images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import tables
from experiments.arguments import parse, print_json
from experiments.cloning import over_own
from experiments.commands.images.distill import load_split
from experiments.environments import folder_of_images
from experiments.loading import check_dataset_fits, load_dataset
from experiments.settings import SeededSettings
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, Evaluation, dataset_evaluator
from hades.images import ImagePairs
from hades.images.data import Split
from hades.inner import cloning
from hades.inner.cloning import CloningSettings


@dataclass(frozen=True, kw_only=True)
class ImagesEvaluateSettings(SeededSettings):
    """Trains fresh networks on synthetic images, and classifies real ones with them.

    On test images also networks that are trained, in the same way, on as many random real images and on class means,
    and untrained ones. Cloning flags that are not given are those of the file.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Dataset file, or run directory."""
    data: Path | None = None
    """Folder of the image files; default: that of the run, or else the one of that name in HADES_IMAGES."""
    splits: tuple[Split, ...] = ("test", "train")
    """Real images to classify."""
    num_inits: int = 16
    """Fresh networks."""
    num_images: int = 10_000
    """Real images of each network, drawn without replacement where there are more."""
    baselines: bool = True
    """Whether networks that have seen no synthetic image are scored, too."""
    cloning: CloningSettings = CloningSettings()
    """Architecture and inner loop."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive, and no split."""
        super().__post_init__()
        self.require_positive("num_inits", "num_images")
        if not self.splits:
            raise ValueError("splits: expected test, train or both, got none")


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    first = parse(ImagesEvaluateSettings, "images evaluate", arguments)
    source, dataset, metadata = load_dataset(first.source)
    own = metadata.require_cloning(str(source))
    settings = over_own(ImagesEvaluateSettings, "images evaluate", arguments, first, own)
    started = time.monotonic()
    evaluations = _evaluate(
        settings, dataset, metadata.env, source, settings.data or folder_of_images(metadata.env, first.source)
    )
    seconds = time.monotonic() - started
    for split, rows in evaluations.items():
        print(tables.render(f"accuracy on {split} images, {metadata.env}", rows, metadata.env))
    print(f"{source}, seed {settings.seed}, {seconds:.1f} s")
    if settings.json:
        splits = {
            split: {name: tables.summary(row) for name, row in rows.items()} for split, rows in evaluations.items()
        }
        head = splits[settings.splits[0]]["dataset"]
        described: dict[str, Any] = {"env": metadata.env, "source": str(source), "seed": settings.seed}
        print_json({**head, **described, "seconds": seconds, "splits": splits})
    return 0


def _evaluate(
    settings: ImagesEvaluateSettings, dataset: SyntheticDataset, name: str, source: Path, folder: Path | None
) -> dict[str, dict[str, Evaluation]]:
    """Accuracies by split and by what networks were trained on."""
    key = jax.random.key(settings.seed)
    found: dict[str, dict[str, Evaluation]] = {}
    for split in settings.splits:
        env = load_split(name, split, folder, source)
        check_dataset_fits(env, dataset, source, None)
        inner = cloning.from_settings(env, settings.cloning)
        count = min(settings.num_images, env.data.num_images)
        evaluator = dataset_evaluator(env, dataset, settings.num_inits, count, inner)
        found[split] = {"dataset": evaluator(key, dataset)}
        if split == "test" and settings.baselines:
            train = load_split(name, "train", folder, source)
            found[split] |= _references(key, evaluator, dataset, ImagePairs(train.data, _per_class(dataset)))
    return found


def _per_class(dataset: SyntheticDataset) -> int:
    assert dataset.action_probabilities is not None  # of classes they are discrete
    return max(1, dataset.num_pairs // dataset.action_probabilities.shape[-1])


def _references(
    key: jax.Array, evaluator: DatasetEvaluator, dataset: SyntheticDataset, real: ImagePairs
) -> dict[str, Evaluation]:
    """Accuracies of networks that have seen no synthetic image; learned step sizes stay."""

    def datasets(key: jax.Array) -> dict[str, SyntheticDataset]:
        return {
            name: dataclasses.replace(pairs, step_sizes=dataset.step_sizes)
            for name, pairs in real.references(key).items()
        }

    return dataclasses.replace(evaluator, more_references=datasets).references(key, dataset)
