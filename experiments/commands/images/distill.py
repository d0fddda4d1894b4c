"""`hades images distill`: labelled images distilled into a few."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

import envs
from envs.names import IMAGES_PREFIX
from experiments import running, void
from experiments.cli import BadArgumentsError
from experiments.loading import checksum
from experiments.pictures import draw_offline_curve
from experiments.presets import images
from experiments.settings import Flat, RunSettings, preset_flag, require_annealed
from hades.dataset import SyntheticDataset
from hades.images import ImageClassification
from hades.images.data import image_files
from hades.recipes.images import ImageSettings, image_run
from hades.run import Run
from hades.training import LoopSettings


@dataclass(frozen=True, kw_only=True)
class ImagesDistillSettings(RunSettings):
    """Distils labelled images into a few, by evolution or by meta-gradients.

    The best images are chosen by accuracy on training images; returns in files and reports are accuracies on test
    images. Episodes of evaluations are images, of which each network sees as many as --evaluation-episodes.
    """

    preset: Annotated[str | None, preset_flag("images distill")] = None
    data: Path | None = None
    """Folder of the four idx files of MNIST or Fashion-MNIST, or of the binary batches of CIFAR-10; default: that of
    the run that is resumed."""
    env: str | None = None
    """Name of the images in files; default: images/ and the name of the folder."""
    num_iterations: int = 300
    """Iterations of the whole run."""
    data_checksum: Annotated[str | None, tyro.conf.Suppress] = None
    """Checksum of the files, so that a run is not resumed on other data."""
    settings: Annotated[ImageSettings, Flat] = ImageSettings()
    """The method."""
    loop: Annotated[LoopSettings, Flat] = images.LOOP
    """The host loop."""

    def __post_init__(self) -> None:
        """Refuses also a budget of environment steps, of which there are none, and limits of KL divergences."""
        super().__post_init__()
        if self.loop.max_env_steps is not None:
            raise ValueError(f"max_env_steps: expected none, as images have no steps, got {self.loop.max_env_steps}")
        if self.settings.outer != "meta-gradient":
            return
        require_annealed(self, self.settings.meta_gradient.anneal_iterations, "meta-gradient.anneal-iterations")
        if self.settings.meta_gradient.max_kl is not None:
            raise ValueError("meta_gradient.max_kl: expected none, as classification reports no KL")

    def void_flags(self) -> dict[str, str]:
        """Also those of the other outer loop, and of an environment's options."""
        outer = self.settings.outer
        by_gradient = ("--evolution.", "--population-size", "--candidate-chunk-size")
        others = by_gradient if outer == "meta-gradient" else ("--meta-gradient.",)
        return {
            **super().void_flags(),
            **void.flags(others, f"beside --outer {outer}"),
            **void.flags(void.ENVIRONMENT_FLAGS, "as images have no options"),
        }


def _complete(settings: ImagesDistillSettings) -> ImagesDistillSettings:
    """Fills in the name of the images, and the whole path of their folder, so that any folder can resume."""
    if settings.data is None:
        raise BadArgumentsError("--data: expected a folder of image files, such as those of MNIST")
    folder = settings.data.absolute()
    return dataclasses.replace(
        settings,
        env=settings.env or f"{IMAGES_PREFIX}{folder.name.lower()}",
        data=folder,
        data_checksum="-".join(map(checksum, image_files(folder))),
    )


def _make_run(settings: Any) -> Run[SyntheticDataset]:
    train, test = (load_split(settings.env, split, settings.data) for split in ("train", "test"))
    return image_run(train.data, test, settings.settings, mesh=settings.chosen_devices)


def load_split(name: str, split: str, folder: Path | None, source: Path | None = None) -> ImageClassification:
    """The images of a split.

    Args:
        name: Name of the images, such as `"images/mnist"`.
        split: `"train"` or `"test"`.
        folder: Folder of their files.
        source: Dataset file that has the name; a flag has it if None.

    Raises:
        BadArgumentsError: The name is none of images.
        ValueError: The folder or its files are missing or malformed.
    """
    env = envs.make(name, split=split, folder=folder) if name.startswith(IMAGES_PREFIX) else None
    if not isinstance(env, ImageClassification):
        if source is not None:
            raise BadArgumentsError(f"{source}: expected pairs of images, got those of {name}")
        raise BadArgumentsError(f"--env: expected a name such as images/mnist, got {name}")
    return env


COMMAND = running.Command(
    "images distill",
    ImagesDistillSettings,
    population="candidates (real training images)",
    make_run=_make_run,
    complete=_complete,
    draw=partial(
        draw_offline_curve,
        labels=("objective on training images", "accuracy: on training images; of references on test images"),
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    return running.launch(COMMAND, arguments)
