"""Real images in, batches out: digits, IDX files, image folders and .npz; normalization and augmentation."""

from .augmentation import Augmentation
from .batching import batches
from .dataset import Dataset, Part
from .images import read_image
from .loading import load
from .normalization import Normalization

__all__ = ["Augmentation", "Dataset", "Normalization", "Part", "batches", "load", "read_image"]
