"""Image classification: labelled images, their files, and an environment whose episodes are single images."""

from __future__ import annotations

from hades.images.data import ImageDataError, LabelledImages, load_images
from hades.images.environment import ImageClassification
from hades.images.pairs import FirstImages, ImagePairs

__all__ = ["FirstImages", "ImageClassification", "ImageDataError", "ImagePairs", "LabelledImages", "load_images"]
