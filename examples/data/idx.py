"""MNIST and Fashion-MNIST, as they are published: four gzipped files in the IDX format."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pooch

from examples.data.arrays import Split
from examples.data.errors import DataError

MNIST_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
FASHION_MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}


def read_idx(path):
    """The array in a gzipped IDX file of unsigned bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
        dims = content[3]
        shape = struct.unpack_from(f">{dims}I", content, 4)
    except (OSError, EOFError, zlib.error, IndexError, struct.error) as error:
        raise DataError(f"{path} is not a complete gzipped IDX file ({error}); delete it and run again.") from error
    entries = content[4 + 4 * dims :]
    if content[:3] != b"\0\0\x08" or len(entries) != math.prod(shape):
        raise DataError(
            f"{path} is not an IDX file of {' x '.join(map(str, shape))} bytes (it has {len(entries)}); "
            "delete it and run again."
        )
    return np.frombuffer(entries, np.uint8).reshape(shape)


def _download(data_dir, name, mirror, registry):
    missing = [file for file in registry if not (data_dir / file).exists()]
    files = pooch.create(path=data_dir, base_url=mirror, registry=registry)
    try:
        for file in missing:
            files.fetch(file)
    except (OSError, ValueError) as error:  # no network, no room to write; pooch's ValueError is a wrong checksum
        reason = error if isinstance(error, ValueError) else type(error).__name__
        listed = "".join(f"\n  {file}" for file in missing)
        raise DataError(
            f"Cannot download {name} from {mirror} ({reason}).\n"
            f"Put these files into {data_dir.resolve()} yourself, gzipped as they are published:{listed}"
        ) from error


def _load(data_dir, name, mirror, registry):
    """(training, test) split; files that `data_dir` lacks are downloaded into it. Images are bytes `[n, 28, 28, 1]`."""
    if data_dir is None:
        raise DataError(f"{name} needs --data-dir, a folder of its four IDX .gz files or one to download them into.")
    data_dir = Path(data_dir)
    _download(data_dir, name, mirror, registry)

    def load(prefix):
        images_path, labels_path = (data_dir / file for file in registry if file.startswith(prefix))
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.shape[1:] != (28, 28):
            raise DataError(f"{images_path} must hold images of 28 x 28 pixels, not an array of shape {images.shape}.")
        if labels.shape != images.shape[:1] or (labels > 9).any():
            raise DataError(f"{labels_path} must hold {len(images)} labels from 0 to 9, one for each image.")
        return Split(images[..., None], labels.astype(np.int32))

    return load("train"), load("t10k")


def load_mnist(data_dir):
    """MNIST: 60,000 training and 10,000 test images of 28 x 28 grey pixels."""
    return _load(data_dir, "MNIST", MNIST_MIRROR, MNIST_FILES)


def load_fashion_mnist(data_dir):
    """Fashion-MNIST, of the same sizes."""
    return _load(data_dir, "Fashion-MNIST", FASHION_MIRROR, FASHION_FILES)
