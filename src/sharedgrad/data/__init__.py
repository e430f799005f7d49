"""Real images in, batches out: digits, IDX files, image folders and .npz; normalization and augmentation."""

from sharedgrad.data.augmentation import Augmentation
from sharedgrad.data.batching import batches
from sharedgrad.data.dataset import Dataset, Part
from sharedgrad.data.images import read_image
from sharedgrad.data.loading import load
from sharedgrad.data.normalization import Normalization

__all__ = ["Augmentation", "Dataset", "Normalization", "Part", "batches", "load", "read_image"]
