"""Data sets as bytes, every file checked; batches of them on a device."""

from dcil.data.datasets import CIFAR10_CLASSES, Dataset, cifar, data_folder, digits, load

__all__ = ["CIFAR10_CLASSES", "Dataset", "cifar", "data_folder", "digits", "load"]
