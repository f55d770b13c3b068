"""WikiText at word level: streams of token ids, cut into segments that continue each other."""

import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.data.errors import DataError, require

SOURCE = "https://www.salesforce.com/research (WikiText, word level: wikitext-103-v1.zip or wikitext-2-v1.zip)"
FILES = {"train": "wiki.train.tokens", "valid": "wiki.valid.tokens"}


class Segment(NamedTuple):
    """A batch of segments.

    Attributes:
        tokens, targets: int32 `[batch, length]`; a target is the token that follows.
        counted: bool `[batch, length]`, which positions the loss counts: all but the padding of a short last
            segment and the warm-up of the memory.
    """

    tokens: np.ndarray
    targets: np.ndarray
    counted: np.ndarray


def read_tokens(path):
    """The words of a file, `<eos>` after every line; case is kept."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text in UTF-8 ({error}); get it again from {SOURCE}") from error
    words = [word for line in io.StringIO(text) for word in (*line.split(), "<eos>")]
    if len(words) < 2:
        raise DataError(f"{path} must hold words separated by spaces, but holds {len(words)}; get it from {SOURCE}")
    return words


class WikiText:
    """Token streams of WikiText.

    Words are numbered from the most frequent of the training part on, for the adaptive softmax. In training the text is
    cut into `batch_size` streams, each rolled by a random shift in every epoch; in evaluation 16 streams, each
    warmed up by a memory's length of what precedes it, which the loss does not count.
    """

    in_memory = False
    resident = ()

    def __init__(self, data_dir, batch_size, length=192, mem_len=192, eval_batch_size=16):
        require(data_dir, FILES.values(), SOURCE, "WikiText")
        words = {part: read_tokens(Path(data_dir) / name) for part, name in FILES.items()}
        counts = Counter(words["train"])
        # Ties in the order of first appearance, as `Counter.most_common` has it.
        ids = {word: number for number, (word, _) in enumerate(counts.most_common())}
        unknown = sorted({word for word in words["valid"] if word not in ids})
        if unknown:
            raise DataError(
                f"{Path(data_dir, FILES['valid'])} must hold words of the training file only (others are <unk>), but "
                f"has {len(unknown)} others such as {unknown[0]!r}; the files are not of one data set."
            )
        self.vocabulary = len(ids)
        tokens = {part: np.array([ids[word] for word in text], np.int32) for part, text in words.items()}
        self.train = self._streams(tokens["train"], batch_size, FILES["train"])
        self.valid = self._streams(tokens["valid"], min(eval_batch_size, len(tokens["valid"]) // 2), FILES["valid"])
        self.length, self.mem_len, self.batch_size = length, mem_len, batch_size
        self.count = self.train.size
        self.steps_per_epoch = -(-(self.train.shape[1] - 1) // length)

    @staticmethod
    def _streams(tokens, batch_size, name):
        columns = len(tokens) // batch_size
        if columns < 2:
            raise DataError(
                f"A batch of {batch_size} streams must have 2 tokens in each, but {name} has {len(tokens)} in all; use "
                "a smaller --batch-size."
            )
        return tokens[: batch_size * columns].reshape(batch_size, columns)

    def _segment(self, streams, first, count_from=0):
        tokens = streams[:, first : first + self.length]
        targets = streams[:, first + 1 : first + 1 + self.length]
        tokens = tokens[:, : targets.shape[1]]
        padding = ((0, 0), (0, self.length - targets.shape[1]))
        position = first + np.arange(self.length)
        counted = (position >= count_from) & (np.arange(self.length) < targets.shape[1])
        tokens, targets = np.pad(tokens, padding), np.pad(targets, padding)
        return Segment(tokens, targets, np.broadcast_to(counted, tokens.shape))

    def batches(self, seed, epoch, start=0):
        """The segments of an epoch from the start-th on."""
        shifts = np.random.default_rng((seed, epoch)).integers(self.train.shape[1], size=len(self.train))
        rolled = np.stack([np.roll(row, shift) for row, shift in zip(self.train, shifts, strict=True)])
        for step in range(start, self.steps_per_epoch):
            yield self._segment(rolled, step * self.length)

    def valid_batches(self):
        """The validation text in order, the memory's warm-up first."""
        warm = -(-self.mem_len // self.length) * self.length
        # What precedes a stream is the end of the one before it (of the last one, before the first).
        before = np.concatenate([np.roll(self.valid, 1, axis=0)] * -(-warm // self.valid.shape[1]), axis=1)
        streams = np.concatenate([before[:, before.shape[1] - warm :], self.valid], axis=1)
        for first in range(0, streams.shape[1] - 1, self.length):
            yield self._segment(streams, first, count_from=warm)

    def fetch(self, resident, batch):
        """Nothing to do: batches come from the host."""
        return batch
