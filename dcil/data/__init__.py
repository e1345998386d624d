"""Data sets as uint8 tensors, every file verified, and loaders that put batches on a device."""

from dcil.data.datasets import CIFAR10_CLASSES, Dataset, cifar, data_folder, digits, load

__all__ = ["CIFAR10_CLASSES", "Dataset", "cifar", "data_folder", "digits", "load"]
