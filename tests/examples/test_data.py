"""The loaders: the data that they read, and the errors that they raise."""

import gzip
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from PIL import Image

from examples.data import augment, cifar, folder, idx, ljspeech, mel, synthetic, wikitext
from examples.data.arrays import ArrayData, Split
from examples.data.errors import DataError
from tests.examples import realdata

NOWHERE = "http://127.0.0.1:9/"  # nothing listens on the discard port, as on a machine without a network


# In memory


def test_an_epoch_has_every_example_once_and_a_shorter_last_batch():
    data = ArrayData(Split(np.arange(10), None), Split(np.arange(3), None), 4)
    batches = list(data.batches(seed=1, epoch=0))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))
    np.testing.assert_array_equal(np.concatenate(list(data.batches(1, 0, start=1))), np.concatenate(batches[1:]))
    assert (np.concatenate(batches) != np.concatenate(list(data.batches(1, 1)))).any()


def test_fewer_examples_than_a_batch_are_refused():
    with pytest.raises(DataError, match="A batch of 11 must not be larger than the data, which are 10"):
        ArrayData(Split(np.arange(10), None), Split(np.arange(3), None), 11)


# MNIST


def test_mnist_is_read_as_it_is_published(tmp_path):
    train, test = idx.load_mnist(str(realdata.write_mnist(tmp_path)))
    assert train.images.shape == (300, 28, 28, 1) and test.images.shape == (50, 28, 28, 1)
    assert train.images.dtype == np.uint8
    np.testing.assert_array_equal(train.labels[:12], [*range(10), 0, 1])
    assert train.images[3, 10, 14, 0] >= 150  # the bright row of class 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("train-images-idx3-ubyte.gz", gzip.compress(b"")[:-3], id="truncated"),
        pytest.param("train-images-idx3-ubyte.gz", b"", id="empty"),
        pytest.param("t10k-images-idx3-ubyte.gz", realdata.idx(np.zeros((50, 28, 28))), id="not gzipped"),
        pytest.param(
            "train-images-idx3-ubyte.gz", gzip.compress(realdata.idx(np.zeros((300, 28, 28)))[:-1]), id="short"
        ),
        pytest.param("train-images-idx3-ubyte.gz", gzip.compress(realdata.idx(np.zeros(9))[:6]), id="half a header"),
        pytest.param("t10k-images-idx3-ubyte.gz", gzip.compress(b"\1" + bytes(15)), id="wrong magic number"),
        pytest.param("t10k-images-idx3-ubyte.gz", gzip.compress(realdata.idx(np.zeros((50, 27, 27)))), id="other size"),
        pytest.param("train-labels-idx1-ubyte.gz", gzip.compress(realdata.idx(np.zeros(299))), id="a label too few"),
        pytest.param("t10k-labels-idx1-ubyte.gz", gzip.compress(realdata.idx(np.full(50, 10))), id="a label of 10"),
    ],
)
def test_a_malformed_idx_file_is_refused_by_name(tmp_path, name, content):
    realdata.write_mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(name)):
        idx.load_mnist(tmp_path)


def test_only_what_is_missing_is_downloaded_and_the_message_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MNIST_MIRROR", NOWHERE)
    realdata.write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels") as error:
        idx.load_mnist(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "train-images" not in str(error.value)


def test_a_download_of_another_checksum_is_refused(tmp_path, monkeypatch):
    def download(url, output_file, pooch):
        with open(output_file, "wb") as file:
            file.write(b"not the published bytes")

    monkeypatch.setattr("pooch.core.choose_downloader", lambda *args, **kwargs: download)
    with pytest.raises(DataError, match="train-images"):
        idx.load_fashion_mnist(tmp_path)
    assert not (tmp_path / "train-images-idx3-ubyte.gz").exists()


# CIFAR


def test_cifar_is_read_colour_by_colour_row_by_row(tmp_path):
    train, test = cifar.load_cifar10(realdata.write_cifar10(tmp_path))
    assert train.images.shape == (20, 32, 32, 3) and test.images.shape == (4, 32, 32, 3)
    row = realdata.cifar_batch(4, seed=1)[b"data"][2]
    assert train.images[6, 5, 7, 1] == row[1024 + 5 * 32 + 7]
    np.testing.assert_array_equal(train.labels[4:8], [0, 1, 2, 3])
    train, _ = cifar.load_cifar100(realdata.write_cifar100(tmp_path / "100"))
    assert train.images.shape == (12, 32, 32, 3)


def test_a_cifar_file_that_a_new_numpy_has_written_again_is_read_alike(tmp_path):
    before, _ = cifar.load_cifar10(realdata.write_cifar10(tmp_path))
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(realdata.cifar_batch(4, seed=1), protocol=2))
    assert b"numpy._core" in (tmp_path / "data_batch_2").read_bytes()
    np.testing.assert_array_equal(cifar.load_cifar10(tmp_path)[0].images, before.images)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda batch: b"", id="empty"),
        pytest.param(lambda batch: realdata.pickled_as_published(batch)[:-100], id="truncated"),
        pytest.param(lambda batch: pickle.dumps([1, 2]), id="no batch"),
        pytest.param(lambda batch: pickle.dumps(batch | {b"data": batch[b"data"][:, :-1]}), id="short rows"),
        pytest.param(lambda batch: pickle.dumps(batch | {b"labels": [0, 1, 2]}), id="a label too few"),
        pytest.param(lambda batch: pickle.dumps(batch | {b"labels": [0, 1, 2, 10]}), id="a label of 10"),
        pytest.param(lambda batch: pickle.dumps(re.compile), id="a function"),
    ],
)
def test_a_malformed_cifar_file_is_refused_by_name(tmp_path, change):
    realdata.write_cifar10(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(change(realdata.cifar_batch(4)))
    with pytest.raises(DataError, match="data_batch_3"):
        cifar.load_cifar10(tmp_path)


def test_missing_cifar_files_are_listed_with_where_to_get_them(tmp_path):
    realdata.write_cifar10(tmp_path)
    (tmp_path / "test_batch").unlink()
    with pytest.raises(DataError, match=r"lacks\n  test_batch\nGet them from https://www.cs.toronto") as error:
        cifar.load_cifar10(tmp_path)
    assert "data_batch" not in str(error.value)
    with pytest.raises(DataError, match="--data-dir"):
        cifar.load_cifar100(None)


# Augmentation


def test_crops_are_shifts_with_zeros_and_flips_are_mirrors():
    images = jnp.asarray(np.random.default_rng(0).integers(1, 256, (64, 8, 8, 3)))
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    crops = augment.random_crop(jax.random.key(0), images)
    corners = set()
    for crop, whole in zip(crops, padded, strict=True):
        found = [(i, j) for i in range(9) for j in range(9) if (whole[i : i + 8, j : j + 8] == crop).all()]
        corners.update(found[:1])
        assert found
    assert len(corners) > 30
    flipped = augment.random_flip(jax.random.key(0), images)
    mirrored = [(np.asarray(a) == np.asarray(b)[:, ::-1]).all() for a, b in zip(flipped, images, strict=True)]
    same = [(np.asarray(a) == np.asarray(b)).all() for a, b in zip(flipped, images, strict=True)]
    assert sum(mirrored) + sum(same) == 64 and 16 < sum(mirrored) < 48


@pytest.mark.slow
def test_a_resized_crop_of_everything_is_the_resized_image_and_of_a_part_a_part():
    ramp = jnp.broadcast_to(jnp.arange(32.0)[None, :, None, None], (40, 32, 32, 1))
    whole = augment.random_resized_crop(jax.random.key(0), ramp, 64, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    expected = jax.image.resize(ramp, (40, 64, 64, 1), "linear")
    np.testing.assert_allclose(whole, expected, atol=1e-3)
    parts = np.asarray(augment.random_resized_crop(jax.random.key(0), ramp, 64, scale=(0.25, 0.25)))
    heights = parts[:, -1, 0, 0] - parts[:, 0, 0, 0]
    assert (heights < 22).all() and (heights > 10).all()  # 16 pixels times a root of an aspect ratio
    assert len(np.unique(np.round(parts[:, 0, 0, 0]))) > 5


def test_masks_hide_thirty_blocks_of_two_by_two_patches():
    masks = np.asarray(augment.block_masks(jax.random.key(0), 5))
    assert masks.shape == (5, 14, 14)
    np.testing.assert_array_equal(masks.sum((1, 2)), 30 * 4)
    np.testing.assert_array_equal(masks, masks[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2))
    assert (masks[0] != masks[1]).any()


# ImageNet


def test_a_folder_of_classes_gives_normalised_batches_the_same_when_continued(tmp_path):
    data = folder.FolderData(realdata.write_imagenet(tmp_path), 5, side=32)
    assert (data.count, data.classes, data.steps_per_epoch) == (12, 3, 2)
    batches = list(data.batches(1, 0))
    assert [batch.images.shape for batch in batches] == [(5, 32, 32, 3)] * 2
    continued = list(data.batches(1, 0, start=1))
    np.testing.assert_array_equal(continued[0].images, batches[1].images)
    np.testing.assert_array_equal(continued[0].labels, batches[1].labels)
    valid = list(data.valid_batches(8))
    assert [len(batch.labels) for batch in valid] == [8, 4]
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in valid]), np.repeat([0, 1, 2], 4))


def test_the_middle_is_cropped_after_resizing_the_shorter_side():
    image = Image.fromarray(np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (64, 96, 3)).copy())
    row = np.asarray(folder.center_crop(image, 56))[0, :, 0]  # not resized: columns 20 to 75
    np.testing.assert_array_equal(row, np.arange(20, 76))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "train/n00000001/2.JPEG").write_bytes(b"no image"), "2.JPEG"),
        (
            lambda root: (root / "train/n00000001/2.JPEG").write_bytes(
                (root / "train/n00000001/2.JPEG").read_bytes()[:300]
            ),
            "2.JPEG",
        ),
        (lambda root: [path.unlink() for path in (root / "val/n00000002").iterdir()], "n00000002"),
        (lambda root: (root / "val").rename(root / "other"), r"val must be a folder with one folder for each class"),
        (lambda root: (root / "val/n00000002").rename(root / "val/n9"), r"same classes in train and val.*n9"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_by_name(tmp_path, spoil, message):
    spoil(realdata.write_imagenet(tmp_path))
    with pytest.raises(DataError, match=message):
        list(folder.FolderData(tmp_path, 4, side=32).batches(1, 0))


# WikiText


def test_segments_continue_each_other_and_targets_follow(tmp_path):
    data = wikitext.WikiText(realdata.write_wikitext(tmp_path), 3, length=8, mem_len=8, eval_batch_size=2)
    assert data.vocabulary == 41  # 40 words and <eos>
    segments = list(data.batches(1, 0))
    assert len(segments) == data.steps_per_epoch
    row = np.concatenate([segment.tokens[1] for segment in segments])
    follows = np.concatenate([segment.targets[1] for segment in segments])
    counted = np.concatenate([segment.counted[1] for segment in segments])
    assert counted.sum() == data.train.shape[1] - 1
    np.testing.assert_array_equal(row[1:][counted[1:]], follows[:-1][counted[1:]])
    assert any((np.roll(data.train[1], shift)[:20] == row[:20]).all() for shift in range(data.train.shape[1]))
    np.testing.assert_array_equal(next(data.batches(1, 0, start=2)).tokens, segments[2].tokens)
    # Words are numbered by frequency.
    counts = np.bincount(data.train.reshape(-1))
    assert (np.diff(counts[:10]) <= 3).all()


def test_evaluation_warms_up_on_what_precedes_and_counts_every_target_once(tmp_path):
    data = wikitext.WikiText(realdata.write_wikitext(tmp_path), 3, length=8, mem_len=12, eval_batch_size=2)
    segments = list(data.valid_batches())
    counted = np.concatenate([segment.counted for segment in segments], axis=1)
    tokens = np.concatenate([segment.tokens for segment in segments], axis=1)
    assert not counted[:, :16].any()  # 12 rounded up to whole segments
    assert counted.sum() == data.valid.size - len(data.valid)
    np.testing.assert_array_equal(tokens[1, :16], data.valid[0, -16:])
    np.testing.assert_array_equal(tokens[1, 16:30], data.valid[1, :14])


def test_words_keep_their_case_and_lines_end_in_eos(tmp_path):
    path = tmp_path / "a"
    path.write_text(" The cat \n \n the end")
    assert wikitext.read_tokens(path) == ["The", "cat", "<eos>", "<eos>", "the", "end", "<eos>"]
    path.write_text("a \u2028 b\x0cc\n", encoding="utf-8")  # these characters do not end a line
    assert wikitext.read_tokens(path) == ["a", "b", "c", "<eos>"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wiki.train.tokens", b"\xff\xfe", "wiki.train.tokens is not a text in UTF-8"),
        ("wiki.train.tokens", b"", "wiki.train.tokens must hold words"),
        ("wiki.train.tokens", b"Word1 \n", "wiki.valid.tokens must hold words of the training file only"),
        ("wiki.valid.tokens", None, "lacks\n  wiki.valid.tokens"),
    ],
)
def test_what_is_wrong_with_wikitext_is_said_by_name(tmp_path, name, content, message):
    realdata.write_wikitext(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        wikitext.WikiText(tmp_path, 3)


def test_more_streams_than_tokens_are_refused(tmp_path):
    with pytest.raises(DataError, match="A batch of 400 streams must have 2 tokens in each"):
        wikitext.WikiText(realdata.write_wikitext(tmp_path), 400)


# LJSpeech


def test_the_filterbank_has_slaneys_scale_and_norm():
    bank = mel.filterbank()
    assert bank.shape == (80, 513)
    corners = mel.mel_to_hz(np.linspace(0, mel.hz_to_mel(8000), 82))
    assert mel.hz_to_mel(1000) == pytest.approx(15) and mel.hz_to_mel(6400) == pytest.approx(42)
    np.testing.assert_allclose(mel.mel_to_hz(mel.hz_to_mel([0, 500, 1000, 8000])), [0, 500, 1000, 8000])
    # In Slaney's norm the area under every triangle is 1. Samples every 21.5 Hz give the area accurately only for wide
    # triangles.
    areas = bank.sum(axis=1) * 22_050 / 1024
    np.testing.assert_allclose(areas[40:], 1, atol=0.02)
    for number in (0, 20, 79):
        triangle = np.interp(np.arange(513) * 22_050 / 1024, corners[number : number + 3], [0, 1, 0])
        np.testing.assert_allclose(bank[number], triangle * 2 / (corners[number + 2] - corners[number]), atol=1e-12)


# Some rows of `librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)`, librosa 0.11.0: the first
# column that is not zero, and the values from there.
LIBROSA = {
    0: (1, [0.01552772, 0.02265139, 0.00712367]),
    10: (18, [0.01096482, 0.02649254, 0.01168657]),
    40: (77, [0.00029586, 0.00531549, 0.01033513, 0.01489547, 0.01006495, 0.00523443, 0.00040391]),
}


@pytest.mark.parametrize("row", LIBROSA)
def test_the_filterbank_is_librosas(row):
    first, values = LIBROSA[row]
    expected = np.zeros(513)
    expected[first : first + len(values)] = values
    np.testing.assert_allclose(mel.filterbank()[row], expected, atol=1e-8)


def test_the_mel_spectrogram_is_scipys_stft_through_the_filterbank():
    samples = np.random.default_rng(0).normal(size=5000) * 0.1
    stft = scipy.signal.ShortTimeFFT(
        scipy.signal.get_window("hann", 1024, fftbins=True), hop=256, fs=22_050, fft_mode="onesided", mfft=1024
    )
    padded = np.pad(samples, 512, mode="reflect")
    whole = range(2, 2 + 1 + len(samples) // 256)  # the slices that lie inside the padded samples
    spectrum = np.abs(stft.stft(padded, p0=0, p1=stft.p_max(len(padded))))
    expected = np.log(np.maximum(mel.filterbank() @ spectrum, 1e-5)).T[list(whole)]
    got = mel.mel_spectrogram(samples)
    assert got.shape == (1 + 5000 // 256, 80)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert mel.mel_spectrogram(np.zeros(2000)).max() == pytest.approx(np.log(1e-5))


def test_text_becomes_symbols():
    assert len(ljspeech.SYMBOL_IDS) + 84 == 148
    assert ljspeech.english_cleaners("Dr.  Smith's café,\n") == "doctor smith's cafe,"
    ids = ljspeech.symbol_ids("_A b!")
    np.testing.assert_array_equal(ids, [ljspeech.SYMBOL_IDS[c] for c in "a b!"])
    assert ljspeech.SYMBOL_IDS["-"] == 1 and ljspeech.SYMBOL_IDS["A"] == 12


def test_clips_are_batched_and_padded_to_few_sizes(tmp_path, caplog):
    data = ljspeech.LJSpeech(realdata.write_ljspeech(tmp_path), 2)
    assert (data.count, data.steps_per_epoch, len(data.valid)) == (5, 2, 1)
    first, second = data.batches(1, 0)
    assert first.symbols.shape == (2, 32) or first.symbols.shape[1] % 32 == 0
    assert first.mels.shape[1] % 128 == 0 and first.mels.shape[2] == 80
    for row, length in enumerate(first.mel_lengths):
        assert (first.mels[row, :length] != 0).any(axis=-1).all() and not first.mels[row, length:].any()
        assert not first.symbols[row, first.symbol_lengths[row] :].any()
    np.testing.assert_array_equal(next(data.batches(1, 0, start=1)).symbols, second.symbols)
    assert not caplog.records  # grain warns if there are more threads than clips to read ahead


def _cut(path):
    path.write_bytes(path.read_bytes()[:4000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "wavs/LJ001-0002.wav").unlink(), r"lacks 1 of the 6 clips.*LJ001-0002"),
        (lambda root: [_cut(path) for path in (root / "wavs").iterdir()], "wav is cut off"),
        (lambda root: [path.write_bytes(b"RIFF") for path in (root / "wavs").iterdir()], "not a complete wav file"),
        (lambda root: (root / "metadata.csv").write_text("LJ001-0001|only two"), "line 1 is 'LJ001-0001"),
        (lambda root: (root / "metadata.csv").write_text(""), "has none"),
        (lambda root: (root / "metadata.csv").unlink(), "lacks\n  metadata.csv"),
    ],
)
def test_what_is_wrong_with_speech_is_said_by_name(tmp_path, spoil, message):
    spoil(realdata.write_ljspeech(tmp_path))
    with pytest.raises(DataError, match=message):
        list(ljspeech.LJSpeech(tmp_path, 2).batches(1, 0))


def test_fewer_clips_than_a_batch_are_refused(tmp_path):
    with pytest.raises(DataError, match="A batch of 64 must not be larger than the data, which are 5 clips"):
        ljspeech.LJSpeech(realdata.write_ljspeech(tmp_path), 64)


# Synthetic


def test_synthetic_labels_are_those_of_the_truth_and_every_class_occurs():
    truth = synthetic.logistic(1, samples=500)
    kernel = truth.params["dense/kernel"]
    assert (kernel.any(axis=1)).sum() == 40
    np.testing.assert_array_equal(np.argmax(truth.train.images @ kernel, axis=1), truth.train.labels)
    conv = synthetic.conv_net(1, samples=500)
    filters = conv.params["conv/kernel"]
    assert filters.any(axis=(0, 1, 3)).sum() == 4 and conv.params["dense/kernel"].any(axis=1).sum() == 16
    np.testing.assert_allclose(np.sum(filters**2, axis=(0, 1, 2)), 1, rtol=1e-5)
    assert (np.bincount(conv.train.labels, minlength=4) > 50).all()
    assert (synthetic.logistic(2, samples=500).params["dense/kernel"] != kernel).any()
