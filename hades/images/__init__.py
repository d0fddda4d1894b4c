"""Image classification: labelled images, their files, and an environment whose episodes are single images."""

from __future__ import annotations

from hades.images.data import ImageDataError, LabelledImages, load_images
from hades.images.environment import ImageClassification
from hades.images.pairs import ImagePairs

__all__ = ["ImageClassification", "ImageDataError", "ImagePairs", "LabelledImages", "load_images"]
