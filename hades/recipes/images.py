"""Image distillation (Behaviour Distillation, arXiv 2406.15042, section 5.4), by evolution or by meta-gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from hades._validation import require_below_one_fields, require_positive_fields
from hades.dataset import SyntheticDataset
from hades.distillation import distillation_run
from hades.fitness import Chunks
from hades.images.data import LabelledImages
from hades.images.environment import ImageClassification
from hades.images.pairs import FirstImages, ImagePairs
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.objectives.classification import Classification, Measure
from hades.outer import EvolutionSettings, MetaGradient, MetaGradientSettings, evolution_from_settings
from hades.recipes._resolve import averaged, require_window_within, resolve_loss, with_learned_steps
from hades.rollouts.settings import PlaySettings
from hades.run import Run
from hades.sharding import MeshOrDevices
from hades.types import OuterLoop

Outer = Literal["meta-gradient", "evolution"]

_INNER_LOOP = CloningSettings(
    policy="cnn",
    hidden_sizes=(128,),
    activation="relu",
    kernel_init="lecun_normal",
    optimizer="sgd",
    learning_rate=0.2,
    num_steps=150,
)
# Ten images need many steps, and gradients through the last few are enough.
_OUTER_LOOP = MetaGradientSettings(window=50, max_grad_norm=0.5, rematerialize=False)
_PLAY = PlaySettings(observation_normalization="none", action_selection="mode")


@dataclass(frozen=True)
class ImageSettings:
    """A distillation of labelled images. The defaults suit a CPU; `paper_images` has the published settings."""

    per_class: int = 1
    """Synthetic images of each class."""
    first_images: FirstImages = "class_means"
    """The first images: means of the classes, or random real images."""
    learn_labels: bool = True
    """Whether labels are learned as distributions over classes, or stay one-hot."""
    bounded_pixels: bool = True
    """Whether pixels of synthetic images are clipped to between 0 and 1."""
    num_inits: int = 1
    """Fresh initialisations that each candidate trains."""
    num_images: int = 256
    """Real images of an iteration for each initialisation, drawn with replacement."""
    measure: Measure = "cross_entropy"
    """Objective on these images: cross_entropy, minus which is maximised, or accuracy, which has no gradient."""
    outer: Outer = "meta-gradient"
    """Outer loop, which moves the images."""
    average_decay: float | None = None
    """Decay of a moving average of the images, which is the outcome in their place; default: no average."""
    population_size: int = 64
    """Candidates of an iteration of the evolution."""
    candidate_chunk_size: int | None = None
    """Candidates of a device that are trained and valued at once; default: all of them."""
    cloning: CloningSettings = _INNER_LOOP
    """The inner loop. Learned step sizes, which are part of the dataset, begin at its learning rate."""
    meta_gradient: MetaGradientSettings = _OUTER_LOOP
    """The outer loop by gradients."""
    evolution: EvolutionSettings = EvolutionSettings(sigma=0.02, learning_rate=0.01)
    """The outer loop by evolution."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive, windows longer than the inner loop, and accuracies as gradients."""
        names = ("per_class", "num_inits", "num_images", "population_size", "candidate_chunk_size")
        require_positive_fields(self, *names)
        require_below_one_fields(self, "average_decay")
        if self.outer not in get_args(Outer):
            raise ValueError(f"outer: expected one of {', '.join(get_args(Outer))}, got {self.outer!r}")
        if self.outer == "evolution":
            return
        require_window_within(self.meta_gradient, self.cloning)
        if self.measure == "accuracy":
            raise ValueError("measure: expected cross_entropy for the meta-gradient, as an accuracy has no gradient")

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return "image-distillation"


def image_distillation(
    train: LabelledImages, env: ImageClassification, *, mesh: MeshOrDevices | None = None, **settings: Any
) -> Run[SyntheticDataset]:
    """Distils labelled images into a few.

    Args:
        train: Real images that the synthetic ones are to stand for; the best outcome is chosen on them, too.
        env: Test images, which outcomes are reported on.
        mesh: Devices that candidates and inits are spread over; all that JAX has if None.
        **settings: Fields of `ImageSettings`.

    Raises:
        ValueError: A setting does not suit the images; the message names it.
    """
    return image_run(train, env, ImageSettings(**settings), mesh=mesh)


def image_run(
    train: LabelledImages,
    env: ImageClassification,
    settings: ImageSettings = ImageSettings(),
    *,
    outer: OuterLoop | None = None,
    mesh: MeshOrDevices | None = None,
) -> Run[SyntheticDataset]:
    """Image distillation with given settings; `outer` is an outer loop in place of theirs. The rest as above.

    Raises:
        ValueError: A setting does not suit the images; the message names it.
    """
    _check(train, env, settings)
    settings = replace(
        settings,
        cloning=resolve_loss(env, settings.cloning, "mse"),
        evolution=settings.evolution.resolved(),
    )
    described = inner = cloning.from_settings(env, settings.cloning)
    if settings.outer == "meta-gradient":
        ascent = settings.meta_gradient
        inner = replace(inner, rematerialize=ascent.rematerialize, window=ascent.window)
    images = ImagePairs(
        train, settings.per_class, settings.first_images, settings.learn_labels, settings.bounded_pixels
    )
    outer = outer or _outer_loop(settings)
    chunk = settings.candidate_chunk_size
    return distillation_run(
        env,
        with_learned_steps(images, inner),
        inner,
        Classification(train, inner.policy, settings.num_images, settings.measure),
        averaged(outer, settings.average_decay),
        num_inits=settings.num_inits,
        evaluation_inner=described,
        selection_env=ImageClassification(env.name, train, "train"),
        play=_PLAY,
        chunks=Chunks(chunk, chunk),
        mesh=mesh,
        method=settings.method,
        settings=settings,
    )


def _outer_loop(settings: ImageSettings) -> OuterLoop:
    if settings.outer == "meta-gradient":
        return MetaGradient.from_settings(settings.meta_gradient)
    return evolution_from_settings(settings.population_size, settings.evolution, settings.candidate_chunk_size)


def _check(train: LabelledImages, env: ImageClassification, settings: ImageSettings) -> None:
    shape, classes = tuple(train.images.shape[1:]), train.num_classes
    if (shape, classes) != (env.observation_shape, env.data.num_classes):
        raise ValueError(
            f"train: expected images of shape {env.observation_shape} in {env.data.num_classes} classes as those of "
            f"{env.name}, got {shape} in {classes}"
        )
    smallest = int(train.class_sizes().min())
    if settings.per_class > smallest:
        raise ValueError(
            f"per_class: expected at most {smallest}, the images of the smallest class, got {settings.per_class}"
        )
