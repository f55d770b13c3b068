"""Tacotron2: text to mel spectrogram with location-sensitive attention, trained with teacher forcing."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from examples.models.layers import batch_norm, torch_bias

SYMBOLS = 148
_uniform = nnx.initializers.uniform


def xavier(gain):
    """Xavier-uniform times PyTorch's gain for the next activation (1 for none, sqrt 2 for ReLU, 5/3 for tanh)."""
    return nnx.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


RELU, TANH, PLAIN = xavier(2**0.5), xavier(5 / 3), xavier(1.0)


def within(lengths, size):
    """A bool mask `[batch, size]` of the positions before the lengths."""
    return jnp.arange(size) < lengths[:, None]


def _conv1d(inputs, outputs, size, kernel_init, *, use_bias=True, rngs, dtype):
    # Only the kernel is re-initialised, and the bias keeps PyTorch's default.
    return nnx.Conv(
        inputs,
        outputs,
        (size,),
        kernel_init=kernel_init,
        use_bias=use_bias,
        bias_init=torch_bias(inputs * size),
        dtype=dtype,
        rngs=rngs,
    )


def _lstm(inputs, features, *, rngs, dtype):
    # All gates are in one kernel, so a group is an input of all four gates. Kernels and bias have PyTorch's default
    # range.
    init = torch_bias(features)
    return nnx.OptimizedLSTMCell(
        inputs, features, kernel_init=init, recurrent_kernel_init=init, bias_init=init, dtype=dtype, rngs=rngs
    )


class ConvNorm(nnx.Module):
    """A convolution over time with batch norm. Positions after the batch's longest sequence stay zero and do not count.

    The batch norm's scale starts at U(0, 1), as in the released code.
    """

    def __init__(self, inputs, outputs, kernel_init, *, size=5, rngs, dtype):
        self.conv = _conv1d(inputs, outputs, size, kernel_init, rngs=rngs, dtype=dtype)
        self.norm = batch_norm(outputs, rngs=rngs, dtype=dtype, scale_init=_uniform(1.0))

    def __call__(self, x, counted):
        mask = counted[None, :, None]
        return jnp.where(mask, self.norm(self.conv(x), mask=mask), 0)


class Encoder(nnx.Module):
    """Three convolutions and a bidirectional LSTM over the symbols."""

    def __init__(self, features, *, rngs, dtype):
        self.convs = nnx.List(ConvNorm(features, features, RELU, rngs=rngs, dtype=dtype) for _ in range(3))
        self.forward = _lstm(features, features // 2, rngs=rngs, dtype=dtype)
        self.backward = _lstm(features, features // 2, rngs=rngs, dtype=dtype)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, lengths, *, rngs=None):
        size = x.shape[1]
        counted = jnp.arange(size) < jnp.max(lengths)
        x = jnp.where(counted[None, :, None], x, 0)
        for layer in self.convs:
            x = self.dropout(nnx.relu(layer(x, counted)), rngs=rngs)
        # Run each sequence up to its own end, like PyTorch's packed sequences, with zeros after it.
        ahead = run_lstm(self.forward, x)
        back = reverse(run_lstm(self.backward, reverse(x, lengths)), lengths)
        return jnp.where(within(lengths, size)[..., None], jnp.concatenate([ahead, back], axis=-1), 0)


def reverse(x, lengths):
    """Reverses every sequence of x `[batch, time, ...]`; positions after its end are arbitrary."""
    index = (lengths[:, None] - 1 - jnp.arange(x.shape[1])) % x.shape[1]
    return jnp.take_along_axis(x, index[..., None], axis=1)


def run_lstm(cell, x):
    """The outputs of an LSTM over x `[batch, time, features]`, from a state of zeros."""
    zeros = jnp.zeros((len(x), cell.hidden_features), x.dtype)
    _, outputs = jax.lax.scan(cell, (zeros, zeros), x.swapaxes(0, 1))
    return outputs.swapaxes(0, 1)


class Prenet(nnx.Module):
    """Two layers with a dropout of 0.5 that is *always* on, in evaluation too.

    In the released code the gain of their initial weights is 1, although a ReLU follows.
    """

    def __init__(self, inputs, features, *, rngs, dtype):
        linear = functools.partial(nnx.Linear, use_bias=False, kernel_init=PLAIN, dtype=dtype, rngs=rngs)
        self.dense1, self.dense2 = linear(inputs, features), linear(features, features)

    def __call__(self, x, *, rngs):
        for layer in (self.dense1, self.dense2):
            x = nnx.relu(layer(x))
            # Do not use `nnx.Dropout`, which `model.eval()` would turn off.
            x = jnp.where(jax.random.bernoulli(rngs.dropout(), 0.5, x.shape), 2 * x, 0)
        return x


class Attention(nnx.Module):
    """Attention by content and by earlier attention weights: v . tanh(query + memory + location)."""

    def __init__(self, query, memory, features=128, filters=32, size=31, *, rngs, dtype):
        linear = functools.partial(nnx.Linear, use_bias=False, dtype=dtype, rngs=rngs)
        self.query_layer = linear(query, features, kernel_init=TANH)
        self.memory_layer = linear(memory, features, kernel_init=TANH)
        self.location_conv = _conv1d(2, filters, size, PLAIN, use_bias=False, rngs=rngs, dtype=dtype)
        self.location_layer = linear(filters, features, kernel_init=TANH)
        self.v = linear(features, 1, kernel_init=PLAIN)

    def __call__(self, query, memory, keys, weights, visible):
        """(context, weights) for a query; `weights` `[batch, symbols, 2]` are the last weights and their sum so far."""
        location = self.location_layer(self.location_conv(weights))
        energies = self.v(jnp.tanh(self.query_layer(query)[:, None] + keys + location))[..., 0]
        energies = jnp.where(visible, energies.astype(jnp.float32), -jnp.inf)
        weights = jax.nn.softmax(energies, axis=-1).astype(memory.dtype)
        return jnp.einsum("bt,btf->bf", weights, memory), weights


class Decoded(NamedTuple):
    """The state of the decoder: the states of both LSTMs, the attention's weights and their sum, and the context."""

    attention: tuple[jax.Array, jax.Array]
    decoder: tuple[jax.Array, jax.Array]
    weights: jax.Array
    context: jax.Array


class Decoder(nnx.Module):
    """Computes a frame from the previous frame, through prenet, attention LSTM, attention and decoder LSTM."""

    def __init__(self, memory, mels, features, prenet, *, rngs, dtype):
        self.prenet = Prenet(mels, prenet, rngs=rngs, dtype=dtype)
        self.attention_lstm = _lstm(prenet + memory, features, rngs=rngs, dtype=dtype)
        self.attention = Attention(features, memory, rngs=rngs, dtype=dtype)
        self.decoder_lstm = _lstm(features + memory, features, rngs=rngs, dtype=dtype)
        linear = functools.partial(
            nnx.Linear,
            features + memory,
            kernel_init=PLAIN,
            bias_init=torch_bias(features + memory),
            dtype=dtype,
            rngs=rngs,
        )
        self.projection, self.gate = linear(mels), linear(1)
        self.features = features
        self.dropout = nnx.Dropout(0.1)

    def __call__(self, memory, lengths, mels, *, rngs):
        """(mel frames, gate logits) with teacher forcing by `mels` `[batch, frames, mels]`."""
        batch, frames, _ = mels.shape
        visible = within(lengths, memory.shape[1])
        keys = self.attention.memory_layer(memory)
        before = jnp.pad(mels, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        inputs = self.prenet(before.astype(memory.dtype), rngs=rngs)

        # The attention's intermediate values are symbols x 128 in each step, so recompute them for the gradient.
        attend = jax.checkpoint(self.attention)

        def step(state, xs):
            frame, key = xs
            first, second = jax.random.split(key)
            c, h = self.attention_lstm(state.attention, jnp.concatenate([frame, state.context], axis=-1))[0]
            h = self.dropout(h, rngs=first)
            context, now = attend(h, memory, keys, state.weights, visible)
            weights = jnp.stack([now, state.weights[..., 1] + now], axis=-1)
            decoder_c, decoder_h = self.decoder_lstm(state.decoder, jnp.concatenate([h, context], axis=-1))[0]
            decoder_h = self.dropout(decoder_h, rngs=second)
            output = jnp.concatenate([decoder_h, context], axis=-1)
            return Decoded((c, h), (decoder_c, decoder_h), weights, context), output

        zeros = jnp.zeros((batch, self.features), memory.dtype)
        start = Decoded(
            (zeros, zeros),
            (zeros, zeros),
            jnp.zeros((*memory.shape[:2], 2), memory.dtype),
            jnp.zeros((batch, memory.shape[2]), memory.dtype),
        )
        keys_of_steps = jax.random.split(rngs.dropout(), frames)
        _, outputs = jax.lax.scan(step, start, (inputs.swapaxes(0, 1), keys_of_steps))
        outputs = outputs.swapaxes(0, 1)
        return self.projection(outputs), self.gate(outputs)[..., 0]


class Postnet(nnx.Module):
    """Five convolutions that correct the mel spectrogram."""

    def __init__(self, mels, features, *, rngs, dtype):
        widths = (mels, *(features,) * 4, mels)
        inits = (TANH,) * 4 + (PLAIN,)
        self.convs = nnx.List(
            ConvNorm(a, b, init, rngs=rngs, dtype=dtype)
            for a, b, init in zip(widths[:-1], widths[1:], inits, strict=True)
        )
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, counted, *, rngs=None):
        for number, layer in enumerate(self.convs):
            x = layer(x, counted)
            x = self.dropout(jnp.tanh(x) if number < len(self.convs) - 1 else x, rngs=rngs)
        return x


class Tacotron2(nnx.Module):
    """Tacotron2 with 28,182,913 parameters for 148 symbols (PyTorch: 28,193,153, with two biases per LSTM cell)."""

    def __init__(self, symbols=SYMBOLS, mels=80, features=512, rnn=1024, prenet=256, *, rngs, dtype=jnp.float32):
        limit = (6 / (symbols + features)) ** 0.5
        self.embed = nnx.Embed(
            symbols,
            features,
            embedding_init=lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -limit, limit),
            dtype=dtype,
            rngs=rngs,
        )
        self.encoder = Encoder(features, rngs=rngs, dtype=dtype)
        self.decoder = Decoder(features, mels, rnn, prenet, rngs=rngs, dtype=dtype)
        self.postnet = Postnet(mels, features, rngs=rngs, dtype=dtype)

    def __call__(self, symbols, symbol_lengths, mels, mel_lengths, *, rngs):
        """(mels, mels with the postnet's correction, gate logits) for `symbols` `[batch, symbols]`.

        As with the released code's `mask_padding=False`, positions after the end of a sequence are not masked. Only
        those after the longest sequence of the batch are, so that sizes may be rounded up.
        """
        memory = self.encoder(self.embed(symbols), symbol_lengths, rngs=rngs)
        before, gate = self.decoder(memory, symbol_lengths, mels, rngs=rngs)
        counted = jnp.arange(mels.shape[1]) < jnp.max(mel_lengths)
        before = jnp.where(counted[None, :, None], before, 0)
        after = before + self.postnet(before, counted, rngs=rngs)
        return before, after, gate
