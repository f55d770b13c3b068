"""Measures how well a model of characters predicts, and how fast it decodes."""

import time

import jax
import numpy as np
import optax
from flax import nnx

from examples.data.characters import num_characters
from examples.models.decoder import continued


def losses(model, tokens):
    """The cross-entropy of each token after the first of each piece, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(model(tokens[:, :-1]), tokens[:, 1:])


def bits_per_character(model, pieces):
    """The bits per character of held-out text; each piece is predicted separately."""
    measure = nnx.jit(losses)
    nats = sum(float(measure(model, part).sum()) for part in np.array_split(pieces, max(len(pieces) // 32, 1)))
    return float(nats / np.log(2) / num_characters(pieces[:, 1:]))


def tokens_per_second(models, prompts, count, rounds=15):
    """The speeds at which models decode, measured alternately: the median of each over the rounds."""
    seconds = np.zeros((rounds + 1, len(models)))
    for turn in range(rounds + 1):
        for i, model in enumerate(models):
            start = time.perf_counter()
            jax.block_until_ready(continued(model, prompts, count))
            seconds[turn, i] = time.perf_counter() - start
    # The first round compiles.
    return (prompts.shape[0] * count / np.median(seconds[1:], axis=0)).tolist()
