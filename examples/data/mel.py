"""Mel spectrograms as Tacotron2's code makes them."""

import functools

import numpy as np

RATE, WINDOW, HOP, MELS, TOP = 22_050, 1024, 256, 80, 8000.0
#: The smallest value the logarithm sees.
FLOOR = 1e-5


def hz_to_mel(hz):
    """Slaney's scale: linear up to 1000 Hz (15 mels), then logarithmic, 27 mels for a factor of 6.4."""
    hz = np.asarray(hz, float)
    return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def mel_to_hz(mel):
    """Its inverse."""
    mel = np.asarray(mel, float)
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


@functools.cache
def filterbank(rate=RATE, window=WINDOW, mels=MELS, top=TOP):
    """Triangles of area 1 (Slaney's norm) with corners equally spaced in mel from 0 to `top` Hz.

    `[mels, window/2 + 1]`, librosa's `filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)`.
    """
    corners = mel_to_hz(np.linspace(0, hz_to_mel(top), mels + 2))
    frequencies = np.fft.rfftfreq(window, 1 / rate)
    lower, middle, upper = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequencies - lower) / (middle - lower), (upper - frequencies) / (upper - middle)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (upper - lower)


def mel_spectrogram(samples):
    """log(max(mel filterbank |STFT|, 1e-5)) of samples in [-1, 1]: float32 `[frames, 80]`, a frame every 256 samples.

    Hann windows of 1024 centred on each frame, the ends reflected; magnitudes, not their squares.
    """
    padded = np.pad(samples, WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)  # periodic
    magnitudes = np.abs(np.fft.rfft(frames * hann, axis=1))
    return np.log(np.maximum(magnitudes @ filterbank().T, FLOOR)).astype(np.float32)
