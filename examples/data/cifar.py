"""CIFAR-10 and CIFAR-100 in their "python version": pickles of rows of 3072 bytes."""

import io
import pickle
from pathlib import Path

import numpy as np

from examples.data.arrays import Split
from examples.data.errors import DataError, require

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers: a pickle may name any function to be called."""

    allowed = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module_name, global_name):
        if (module_name, global_name) not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
        if module_name == "numpy.core.multiarray":  # the name of NumPy 1, which wrote these files
            module_name = "numpy._core.multiarray"
        return super().find_class(module_name, global_name)


def read_batch(path, label_key, classes):
    """(images `[n, 32, 32, 3]`, labels) of one file, checked by its layout.

    The checksum is not used: copies differ in the lists of file names, which are not read.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, ImportError, IndexError, TypeError) as error:
        raise DataError(
            f"{path} is not a complete batch file of CIFAR ({error}); get it again from {SOURCE}"
        ) from error
    data = batch.get(b"data") if isinstance(batch, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DataError(f"{path} must hold `data`, rows of 3072 bytes; get it again from {SOURCE}")
    labels = np.asarray(batch.get(label_key, ()))
    is_label = labels.shape == (len(data),) and np.issubdtype(labels.dtype, np.integer)
    if not is_label or (len(labels) and not 0 <= labels.min() <= labels.max() < classes):
        raise DataError(
            f"{path} must hold `{label_key.decode()}`, {len(data)} labels from 0 to {classes - 1}, one for each row; "
            f"get it again from {SOURCE}"
        )
    # Rows are colour by colour, row by row.
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int32)


def _load(data_dir, name, train, test, label_key, classes):
    require(data_dir, [*train, test], f"{SOURCE} ({name} python version)", name)

    def load(files):
        images, labels = zip(*(read_batch(Path(data_dir) / file, label_key, classes) for file in files), strict=True)
        return Split(np.concatenate(images), np.concatenate(labels))

    return load(train), load([test])


def load_cifar10(data_dir):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 in 10 classes."""
    train = [f"data_batch_{number}" for number in range(1, 6)]
    return _load(data_dir, "CIFAR-10", train, "test_batch", b"labels", 10)


def load_cifar100(data_dir):
    """CIFAR-100: the same in 100 classes."""
    return _load(data_dir, "CIFAR-100", ["train"], "test", b"fine_labels", 100)
