"""Tiny data sets in the real formats, for the loaders to read."""

import gzip
import pickle
import struct

import numpy as np
import soundfile
from PIL import Image


def idx(array):
    """An array of bytes in the IDX format, as MNIST is published."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder, train=300, test=50):
    """Images that a logistic regression can tell apart: a bright row per class, a black border."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 50, (count, 28, 28))
        images[np.arange(count), 2 * labels + 4] += 150
        images[:, :, :4] = images[:, :, -4:] = 0
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


def cifar_batch(count, label_key=b"labels", classes=10, seed=0):
    """What one file of CIFAR unpickles to."""
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": b"batch",
        label_key: [int(label) for label in np.arange(count) % classes],
        b"data": rng.integers(0, 256, (count, 3072)).astype(np.uint8),
        b"filenames": [b"image.png"] * count,
    }


def pickled_as_published(batch):
    """Protocol 2 with the module names of NumPy 1, as the published files have."""
    content = pickle.dumps(batch, protocol=2)
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_cifar10(folder, count=4):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        (folder / name).write_bytes(pickled_as_published(cifar_batch(count, seed=seed)))
    return folder


def write_cifar100(folder, count=12):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("train", "test")):
        (folder / name).write_bytes(pickled_as_published(cifar_batch(count, b"fine_labels", 100, seed)))
    return folder


def write_imagenet(folder, classes=3, count=4):
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in range(classes):
            place = folder / part / f"n{label:08d}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40 + 3 * number, 50 - 2 * number, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.JPEG")
    return folder


def write_wikitext(folder, lines=60):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"Word{number}" for number in range(40)]
    for name, count in (("wiki.train.tokens", lines), ("wiki.valid.tokens", lines // 3)):
        text = [" " + " ".join(rng.choice(words, 8)) + " \n" for _ in range(count)]
        if name == "wiki.train.tokens":
            text.append(" " + " ".join(words) + " \n")
        (folder / name).write_text("".join(text))
    return folder


def write_ljspeech(folder, clips=6):
    rng = np.random.default_rng(0)
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for number in range(clips):
        samples = 0.1 * rng.normal(size=4000 + 1000 * number)
        soundfile.write(folder / "wavs" / f"LJ001-{number:04d}.wav", samples, 22_050, subtype="PCM_16")
        text = f'He said, "no {number}"' + " and more" * number
        lines.append(f"LJ001-{number:04d}|{text}|{text}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder
