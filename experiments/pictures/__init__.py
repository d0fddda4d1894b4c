"""Pictures of a run and of its synthetic dataset, drawn without pyplot and without touching global settings."""

from experiments.pictures.curve import curve_figure, draw_curve, draw_offline_curve, offline_curve_figure
from experiments.pictures.dataset import dataset_figure, draw_dataset

__all__ = ["curve_figure", "dataset_figure", "draw_curve", "draw_dataset", "draw_offline_curve", "offline_curve_figure"]
