"""ImageNet: a folder of JPEG images for each class, read by grain during training."""

import io
from pathlib import Path

import grain
import numpy as np
from PIL import Image

from examples.data.arrays import Split
from examples.data.errors import DataError, check_enough

SUFFIXES = {".jpg", ".jpeg"}
MEAN, STD = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)


def list_images(root):
    """(paths, labels) of a folder of classes; labels count the classes in the order of their names."""
    classes = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not classes:
        raise DataError(
            f"{root.resolve()} must be a folder with one folder for each class and JPEG images in them. Get ImageNet "
            "from https://image-net.org/download-images (ILSVRC2012) and unpack it into train/CLASS/*.JPEG and "
            "val/CLASS/*.JPEG."
        )
    paths, labels = [], []
    for label, folder in enumerate(classes):
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not images:
            raise DataError(f"{folder.resolve()} holds no JPEG image; put the class's images there or delete it.")
        paths += images
        labels += [label] * len(images)
    return paths, labels, [folder.name for folder in classes]


def read_image(path):
    """The image in a file, RGB."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} is not a complete JPEG image ({error}); get it again or delete it.") from error


def random_resized_crop(image, side, rng):
    """Torchvision's `RandomResizedCrop` with 8 to 100 % of the area, and a flip half of the time."""
    width, height = image.size
    box = None
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            box = (left, top, left + w, top + h)
            break
    if box is None:  # the middle, of the nearest aspect ratio that is allowed
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        box = ((width - w) // 2, (height - h) // 2, (width + w) // 2, (height + h) // 2)
    crop = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def center_crop(image, side):
    """The shorter side to 256/224 of `side`, then the middle `side` x `side`."""
    resized = round(side * 256 / 224)
    scale = resized / min(image.size)
    width, height = (max(resized, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + side, top + side))


def pixels(image):
    """Pixels, normalised by ImageNet's mean and standard deviation."""
    return (np.asarray(image, np.float32) / 255 - MEAN) / STD


class FolderData:
    """Batches of decoded and augmented images, made by grain's threads.

    Every image's augmentation depends on (seed, epoch, position) alone, so that a continued run
    gets the same batches.
    """

    in_memory = False
    resident = ()

    def __init__(self, data_dir, batch_size, side=224, threads=16):
        if data_dir is None:
            raise DataError("ImageNet needs --data-dir, a folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG.")
        root = Path(data_dir)
        self.train = list_images(root / "train")
        self.valid = list_images(root / "val")
        if self.train[2] != self.valid[2]:
            odd = sorted(set(self.train[2]) ^ set(self.valid[2]))
            raise DataError(f"{root.resolve()} must have the same classes in train and val, but {odd} are in one only.")
        check_enough(len(self.train[0]), batch_size, "training images")
        self.batch_size, self.side, self.threads = batch_size, side, threads
        self.classes = len(self.train[2])
        self.count = len(self.train[0])
        # The rest is dropped, because the batch is spread over the NeurIPS paper's 8 GPUs.
        self.steps_per_epoch = self.count // batch_size

    def _read(self, paths):
        return grain.ReadOptions(num_threads=min(self.threads, len(paths)), prefetch_buffer_size=2 * self.batch_size)

    def batches(self, seed, epoch, start=0):
        """The batches of an epoch from the start-th on."""
        paths, labels, _ = self.train
        order = np.random.default_rng((seed, epoch)).permutation(len(paths))
        order = order[start * self.batch_size : self.steps_per_epoch * self.batch_size]

        def load(index):
            rng = np.random.default_rng((seed, epoch, int(index)))
            image = random_resized_crop(read_image(paths[index]), self.side, rng)
            return Split(pixels(image), np.asarray(labels[index], np.int32))

        data = grain.MapDataset.source(order.tolist()).map(load)
        yield from data.to_iter_dataset(self._read(order)).batch(self.batch_size)

    def valid_batches(self, batch_size=256):
        """The validation images in order."""
        paths, labels, _ = self.valid

        def load(index):
            return Split(pixels(center_crop(read_image(paths[index]), self.side)), np.asarray(labels[index], np.int32))

        data = grain.MapDataset.range(len(paths)).map(load)
        yield from data.to_iter_dataset(self._read(paths)).batch(batch_size, drop_remainder=False)

    def fetch(self, resident, batch):
        """Nothing to do: batches come from the host."""
        return batch
