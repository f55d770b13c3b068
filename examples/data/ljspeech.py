"""LJSpeech: wav clips and their transcriptions, as mel spectrograms and symbols."""

import csv
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
import soundfile

from examples.data.errors import DataError, check_enough, require
from examples.data.mel import MELS, RATE, WINDOW, mel_spectrogram

SOURCE = "https://keithito.com/LJ-Speech-Dataset (LJSpeech-1.1: metadata.csv and wavs/)"
#: Sizes that a batch is padded up to, so that few shapes are compiled.
SYMBOL_STEP, FRAME_STEP = 32, 128
# Of the 148 symbols of the released code the last 84 are ARPAbet phonemes, which this text never has; their rows of the
# embedding are kept for the size's sake.
_LETTERS = "_-!'(),.:;? ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SYMBOL_IDS = {symbol: number for number, symbol in enumerate(_LETTERS)}
ABBREVIATIONS = {
    "mrs": "misess",
    "mr": "mister",
    "dr": "doctor",
    "st": "saint",
    "co": "company",
    "jr": "junior",
    "maj": "major",
    "gen": "general",
    "drs": "doctors",
    "rev": "reverend",
    "lt": "lieutenant",
    "hon": "honorable",
    "sgt": "sergeant",
    "capt": "captain",
    "esq": "esquire",
    "ltd": "limited",
    "col": "colonel",
    "ft": "fort",
}


class Speech(NamedTuple):
    """A batch of clips, padded: symbols with 0, frames with 0, gates with 1.

    Attributes:
        symbols: int32 `[batch, symbols]`.
        symbol_lengths: int32 `[batch]`.
        mels: float32 `[batch, frames, 80]`.
        mel_lengths: int32 `[batch]`.
    """

    symbols: np.ndarray
    symbol_lengths: np.ndarray
    mels: np.ndarray
    mel_lengths: np.ndarray


def english_cleaners(text):
    """ASCII, lower case, abbreviations written out, single spaces.

    For the normalised transcription, whose numbers are words already.
    """
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    for short, whole in ABBREVIATIONS.items():
        text = re.sub(rf"\b{short}\.", whole, text)
    return re.sub(r"\s+", " ", text).strip()


def symbol_ids(text):
    """The symbols of a text; other characters are left out."""
    return np.array([SYMBOL_IDS[c] for c in english_cleaners(text) if c in SYMBOL_IDS and c != "_"], np.int32)


def read_metadata(root):
    """(wav path, text) of every line of metadata.csv: id|transcription|normalised transcription."""
    path = root / "metadata.csv"
    clips = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE), start=1):
            if len(row) != 3 or not symbol_ids(row[2]).size:
                raise DataError(
                    f"{path} must have lines `id|text|normalised text`, but line {number} is {'|'.join(row)[:80]!r}; "
                    f"get it again from {SOURCE}"
                )
            clips.append((root / "wavs" / f"{row[0]}.wav", row[2]))
    if not clips:
        raise DataError(f"{path} must have a line for each clip, but has none; get it again from {SOURCE}")
    lacking = [path for path, _ in clips if not path.exists()]
    if lacking:
        raise DataError(
            f"{root.resolve()} lacks {len(lacking)} of the {len(clips)} clips of metadata.csv, such as "
            f"wavs/{lacking[0].name}; get them from {SOURCE} or delete their lines."
        )
    return clips


def read_clip(path):
    """The samples of a wav, in [-1, 1]."""
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} is not a complete wav file ({error}); get it again from {SOURCE}") from error
    if rate != RATE or samples.ndim != 1:
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        raise DataError(f"{path} must be mono at {RATE} Hz, but has {channels} channels at {rate} Hz; resample it.")
    # libsndfile reads a file that was cut off without an error.
    declared = declared_samples(path)
    if declared is not None and declared > len(samples):
        raise DataError(f"{path} is cut off: {len(samples)} of {declared} samples; get it again from {SOURCE}")
    if len(samples) <= WINDOW:
        raise DataError(f"{path} must hold more than {WINDOW} samples, but has {len(samples)}; get it from {SOURCE}")
    return samples


def declared_samples(path):
    """The number of samples in a wav's header, or None if there is no such header."""
    header = path.read_bytes()[:4096]
    start = header.find(b"data")
    return int.from_bytes(header[start + 4 : start + 8], "little") // 2 if start >= 0 else None


def padded(clips):
    """A `Speech` of (symbols, mels) pairs, sizes rounded up."""

    def room(lengths, step):
        return -(-max(lengths) // step) * step

    symbol_lengths = np.array([len(symbols) for symbols, _ in clips], np.int32)
    mel_lengths = np.array([len(mels) for _, mels in clips], np.int32)
    symbols = np.zeros((len(clips), room(symbol_lengths, SYMBOL_STEP)), np.int32)
    mels = np.zeros((len(clips), room(mel_lengths, FRAME_STEP), MELS), np.float32)
    for row, (text, frames) in enumerate(clips):
        symbols[row, : len(text)] = text
        mels[row, : len(frames)] = frames
    return Speech(symbols, symbol_lengths, mels, mel_lengths)


class LJSpeech:
    """Batches of clips, read and analysed by grain's threads.

    12,500 clips train, 100 validate and 500 are left for tests, of a fixed random order; of fewer clips a share of
    100/13,100, at least one, validates.
    """

    in_memory = False
    resident = ()

    def __init__(self, data_dir, batch_size, threads=8):
        require(data_dir, ["metadata.csv", "wavs"], SOURCE, "LJSpeech")
        clips = read_metadata(Path(data_dir))
        order = np.random.default_rng(0).permutation(len(clips))
        held_out = max(1, round(len(clips) * 100 / 13_100))
        tests = round(len(clips) * 500 / 13_100)
        self.valid = [clips[i] for i in order[:held_out]]
        self.train = [clips[i] for i in order[held_out + tests :]]
        check_enough(len(self.train), batch_size, "clips to train on")
        self.batch_size, self.threads = batch_size, threads
        self.count = len(self.train)
        self.steps_per_epoch = self.count // batch_size

    @staticmethod
    def _load(clip):
        path, text = clip
        return symbol_ids(text), mel_spectrogram(read_clip(path))

    def _batches(self, clips, batch_size, drop_remainder):
        data = grain.MapDataset.source(clips).map(self._load)
        # Grain demands at most as many threads as clips that it reads ahead.
        options = grain.ReadOptions(num_threads=min(self.threads, batch_size), prefetch_buffer_size=batch_size)
        return data.to_iter_dataset(options).batch(batch_size, drop_remainder=drop_remainder, batch_fn=padded)

    def batches(self, seed, epoch, start=0):
        """The batches of an epoch from the start-th on."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self.train))
        order = order[start * self.batch_size : self.steps_per_epoch * self.batch_size]
        if len(order):
            yield from self._batches([self.train[i] for i in order], self.batch_size, True)

    def valid_batches(self):
        """The validation clips in order."""
        yield from self._batches(self.valid, min(self.batch_size, len(self.valid)), False)

    def fetch(self, resident, batch):
        """Nothing to do: batches come from the host."""
        return batch
