"""Tasks on text and speech."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples import models
from examples.data import ljspeech, wikitext
from examples.experiments.tasks import Score, Task


@dataclasses.dataclass(frozen=True)
class LanguageModel(Task):
    """Predicts next words, with a memory that is passed from segment to segment; the metric is the perplexity."""

    model: Callable[..., nnx.Module] = models.TransformerXL
    length: int = 192
    mem_len: int = 192
    metric = "perplexity"
    higher_is_better = False

    def load(self, data_dir, batch_size, seed):
        return wikitext.WikiText(data_dir, batch_size, self.length, self.mem_len)

    def make_model(self, data, rngs, dtype):
        return self.model(vocabulary=data.vocabulary, mem_len=self.mem_len, rngs=rngs, dtype=dtype)

    def start_carry(self, model, batch_size):
        return model.empty_memory(batch_size)

    def _losses(self, model, batch, carry, key):
        losses, carry = model.losses(batch.tokens, batch.targets, carry, rngs=nnx.Rngs(dropout=key))
        return jnp.sum(losses * batch.counted), jnp.sum(batch.counted), carry

    def loss(self, model, batch, carry, key, *, train=True):
        total, count, carry = self._losses(model, batch, carry, key)
        return total / count, carry

    def score(self, model, batch, carry, key):
        total, count, carry = self._losses(model, batch, carry, key)
        return Score(total, count), carry

    def final(self, mean):
        return float(np.exp(mean))


@dataclasses.dataclass(frozen=True)
class Speech(Task):
    """Predicts mel spectrograms from text with teacher forcing; the metric is the validation loss.

        MSE(mels) + MSE(mels with the postnet's correction) + binary cross entropy of the gate, 1 from the last frame on

    Each term is a mean over all clips, and over the frames of the batch's longest clip, as with the released code's
    `mask_padding=False`. So frames after a clip's end count, with target 0.
    """

    model: Callable[..., nnx.Module] = models.Tacotron2
    metric = "validation loss"
    higher_is_better = False

    def load(self, data_dir, batch_size, seed):
        return ljspeech.LJSpeech(data_dir, batch_size)

    def make_model(self, data, rngs, dtype):
        return self.model(rngs=rngs, dtype=dtype)

    def loss(self, model, batch, carry, key, *, train=True):
        before, after, gate = (x.astype(jnp.float32) for x in model(*batch, rngs=nnx.Rngs(dropout=key)))
        frames = jnp.arange(batch.mels.shape[1])
        counted = frames < jnp.max(batch.mel_lengths)
        weight = counted / (jnp.sum(counted) * len(batch.mels))
        ended = frames >= batch.mel_lengths[:, None] - 1
        squares = jnp.mean((before - batch.mels) ** 2 + (after - batch.mels) ** 2, axis=-1)
        return jnp.sum((squares + optax.sigmoid_binary_cross_entropy(gate, ended)) * weight), carry

    def score(self, model, batch, carry, key):
        loss, carry = self.loss(model, batch, carry, key, train=False)
        return Score(loss, jnp.ones([])), carry
