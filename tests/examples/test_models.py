"""The papers' models: their sizes, and details that a port can get wrong without an error."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ramda_jax
from examples import models
from examples.models import tacotron2, transformer_xl
from examples.models.layers import batch_norm
from ramda_jax.structure import regularized_leaves
from tests.tiny import array

TXL_GROUPS = {r"layers/.*/kernel": ramda_jax.GroupLasso("input")}
LOW_RANK = {r"layers/.*/kernel": ramda_jax.NuclearNorm()}
LASSO = ramda_jax.GroupLasso("input")
# Give the axis, because with the name "input" a kernel with one input channel counts as depthwise.
LENET_LASSO = ramda_jax.GroupLasso(-2)

# The numbers of parameters, regularised parameters, tensors and groups (singular values for the nuclear norm), counted
# from the papers' models in PyTorch. Tacotron2's LSTM cells have one bias here and two in PyTorch, so 10,240 parameters
# fewer.
SIZES = [
    pytest.param(models.Linear, LASSO, (7_850, 7_840, 1, 784), id="linear"),
    pytest.param(models.MLP, ramda_jax.NuclearNorm(), (577_178, 576_160, 7, 1018), id="mlp"),
    pytest.param(models.LeNet5, LENET_LASSO, (431_080, 430_500, 4, 1_321), id="lenet5 large"),
    pytest.param(models.lenet5_small, LENET_LASSO, (61_706, 61_470, 5, 611), id="lenet5 small"),
    pytest.param(models.VGG19, LASSO, (20_040_522, 20_024_000, 17, 5_507), id="vgg19 C10"),
    pytest.param(functools.partial(models.VGG19, 100), LASSO, (20_086_692, 20_070_080, 17, 5_507), id="vgg19 C100"),
    pytest.param(models.ResNet50, LASSO, (23_520_842, 23_467_712, 54, 24_579), id="resnet50 C10"),
    pytest.param(functools.partial(models.ResNet50, 100), LASSO, (23_705_252, 23_652_032, 54, 24_579), id="r50 C100"),
    pytest.param(models.rigl_resnet50, LASSO, (23_520_842, 23_467_712, 54, 24_579), id="resnet50 RigL"),
    pytest.param(models.imagenet_resnet50, LASSO, (25_557_032, 25_502_912, 54, 24_579), id="resnet50 ImageNet"),
    pytest.param(models.TransformerXL, TXL_GROUPS, (191_950_298, 54_525_952, 80, 65_536), id="transformer-xl"),
    pytest.param(models.Tacotron2, LASSO, (28_182_913, 28_085_824, 25, 14_658), id="tacotron2"),
    pytest.param(models.ViTMIM, LOW_RANK, (2_113_920, 1_769_472, 24, 4_608), id="vit mim"),
]


@nnx.jit
def call(model, *args, **kwargs):
    """The model's output, from one compiled program instead of one for each operation."""
    return model(*args, **kwargs)


def abstract_params(make):
    return nnx.state(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))), nnx.Param)


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "regularizer", "expected"), SIZES)
def test_models_have_the_papers_sizes(make, regularizer, expected):
    params = abstract_params(make)
    leaves = regularized_leaves(regularizer, params)
    groups = sum(
        min(math.prod(leaf.shape[:-1]), leaf.shape[-1])
        if isinstance(resolved, ramda_jax.NuclearNorm)
        else math.prod(resolved.radii_shape(leaf.shape))
        for _, leaf, resolved in leaves
    )
    regularised = sum(math.prod(leaf.shape) for _, leaf, _ in leaves)
    assert (size(params), regularised, len(leaves), groups) == expected


def test_transformer_xl_has_its_parameters_in_the_layers():
    params = abstract_params(models.TransformerXL)
    assert size(params["layers"]) == 54_599_680


def test_tacotron2_has_groups_of_one_where_there_is_one_output():
    params = abstract_params(models.Tacotron2)
    alone = {
        path: leaf.shape[0]
        for path, leaf, resolved in regularized_leaves(LASSO, params)
        if resolved.sizes(leaf.shape) == 1
    }
    assert alone == {"decoder/attention/v/kernel": 128, "decoder/gate/kernel": 1536}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "side", "classes"),
    [
        (models.LeNet5, 28, 10),
        (models.lenet5_small, 28, 10),
        (models.VGG19, 32, 10),
        (models.ResNet50, 32, 10),
        (models.imagenet_resnet50, 224, 1000),
    ],
)
def test_image_models_give_a_logit_for_each_class(make, side, classes):
    def logits():
        channels = 1 if side == 28 else 3
        return make(rngs=nnx.Rngs(0))(jnp.zeros((2, side, side, channels)))

    assert nnx.eval_shape(logits).shape == (2, classes)


def naive_conv(x, layer, strides=1):
    """PyTorch's convolution in NumPy, with padding of half the kernel on all sides."""
    kernel = np.asarray(layer.kernel[...], float)
    pad = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))[:, ::strides, ::strides]
    out = np.einsum("nhwikl,klio->nhwo", windows, kernel)
    return out if layer.bias is None else out + np.asarray(layer.bias[...], float)


def naive_norm(x, norm):
    """Batch norm with the batch's statistics."""
    shifted = x - x.mean((0, 1, 2))
    scaled = shifted / np.sqrt((shifted**2).mean((0, 1, 2)) + 1e-5)
    return scaled * np.asarray(norm.scale[...], float) + np.asarray(norm.bias[...], float)


def naive_linear(x, layer):
    return x @ np.asarray(layer.kernel[...], float) + np.asarray(layer.bias[...], float)


def images_and_norms_that_matter(model, side):
    """Random images. Every norm gets a scale and a bias of its own, so that a norm in the wrong place is found."""
    rng = np.random.default_rng(0)
    for _, norm in nnx.iter_graph(model):
        if isinstance(norm, nnx.BatchNorm):
            norm.scale[...] = array(rng.uniform(0.5, 1.5, norm.scale[...].shape), jnp.float32)
            norm.bias[...] = array(rng.normal(size=norm.bias[...].shape), jnp.float32)
    return rng.normal(size=(3, side, side, 3)).astype(np.float32)


@pytest.mark.slow
def test_resnet_is_the_naive_formula():
    model = models.ResNet50(width=4, depths=(2, 2, 1, 1), rngs=nnx.Rngs(0))
    images = images_and_norms_that_matter(model, 16)
    x = np.maximum(naive_norm(naive_conv(images.astype(float), model.conv), model.norm), 0)
    for block, strides in zip(model.blocks, (1, 1, 2, 1, 2, 2), strict=True):
        shortcut = x
        if block.has_projection:
            shortcut = naive_norm(naive_conv(x, block.projection, strides), block.projection_norm)
        x = np.maximum(naive_norm(naive_conv(x, block.conv1), block.norm1), 0)
        x = np.maximum(naive_norm(naive_conv(x, block.conv2, strides), block.norm2), 0)
        x = np.maximum(naive_norm(naive_conv(x, block.conv3), block.norm3) + shortcut, 0)
    assert [block.has_projection for block in model.blocks] == [True, False, True, False, True, True]
    np.testing.assert_allclose(
        call(model, images), naive_linear(x.mean((1, 2)), model.classifier), rtol=1e-3, atol=1e-3
    )


def test_vgg_is_the_naive_formula():
    model = models.VGG19(widths=(3, 4, 5, 6, 7), depths=(1, 2, 1, 1, 1), rngs=nnx.Rngs(0))
    images = images_and_norms_that_matter(model, 32)
    x, layers = images.astype(float), iter(zip(model.convs, model.norms, strict=True))
    for depth in (1, 2, 1, 1, 1):
        for _ in range(depth):
            convolution, norm = next(layers)
            x = np.maximum(naive_norm(naive_conv(x, convolution), norm), 0)
        n, height, width, channels = x.shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    assert x.shape == (3, 1, 1, 7)
    np.testing.assert_allclose(call(model, images), naive_linear(x[:, 0, 0], model.classifier), rtol=1e-3, atol=1e-3)


def test_batch_norm_moves_by_a_tenth_and_normalises_by_running_statistics_in_evaluation():
    norm = batch_norm(2, rngs=nnx.Rngs(0), dtype=jnp.float32)
    x = np.random.default_rng(0).normal(3, 2, size=(64, 2)).astype(np.float32)
    norm(x)
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var(0), rtol=1e-5)
    norm.eval()
    expected = (x - 0.1 * x.mean(0)) / np.sqrt(0.9 + 0.1 * x.var(0) + 1e-5)
    np.testing.assert_allclose(norm(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_initial_weights_have_pytorchs_ranges():
    model = models.LeNet5(rngs=nnx.Rngs(0))
    for layer, fan_in in ((model.conv2, 20 * 25), (model.dense[0], 800)):
        for leaf in (layer.kernel, layer.bias):
            largest = float(jnp.max(jnp.abs(leaf[...])))
            assert 0.9 * fan_in**-0.5 < largest <= fan_in**-0.5
    vgg = models.VGG19(widths=(64, 64, 8, 8, 8), rngs=nnx.Rngs(0))
    assert float(jnp.std(vgg.convs[1].kernel[...])) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert not vgg.convs[1].bias[...].any()
    assert not models.Linear(rngs=nnx.Rngs(0)).dense.kernel[...].any()
    last = [block.norm3.scale[...] for block in models.rigl_resnet50(rngs=nnx.Rngs(0)).blocks]
    assert len(last) == 16 and not any(scale.any() for scale in last)


@pytest.mark.slow
def test_tacotrons_and_the_vits_initial_weights_have_the_papers_ranges():
    model = models.Tacotron2(features=64, rnn=64, prenet=64, rngs=nnx.Rngs(0))
    decoder = model.decoder
    for layer, gain in (
        (decoder.prenet.dense1, 1.0),  # not the gain of the ReLU that follows
        (decoder.prenet.dense2, 1.0),
        (decoder.projection, 1.0),
        (decoder.attention.query_layer, 5 / 3),
        (model.encoder.convs[0].conv, 2**0.5),
        (model.postnet.convs[1].conv, 5 / 3),
    ):
        *size, inputs, outputs = layer.kernel[...].shape
        limit = gain * math.sqrt(6 / (math.prod(size) * (inputs + outputs)))
        assert 0.97 * limit < float(jnp.max(jnp.abs(layer.kernel[...]))) <= limit
    for layer in (decoder.projection, decoder.gate, model.encoder.convs[0].conv):
        limit = math.prod(layer.kernel[...].shape[:-1]) ** -0.5
        assert 0 < float(jnp.max(jnp.abs(layer.bias[...]))) <= limit
    vit = models.ViTMIM(rngs=nnx.Rngs(0))
    assert float(jnp.std(vit.layers[0].fc1.kernel[...])) == pytest.approx(0.02, rel=0.01)


# Transformer-XL


def tiny_txl(**changes):
    settings = dict(vocabulary=50, layers=2, features=16, heads=2, head_size=8, hidden=32, mem_len=5, cutoffs=(20, 30))
    return models.TransformerXL(**settings | changes, rngs=nnx.Rngs(0))


def test_relative_attention_is_the_naive_formula():
    batch, queries, mem_len, features, heads, head_size = 2, 4, 5, 16, 2, 8
    layer = tiny_txl().layers[0]
    rng = np.random.default_rng(0)
    x, past = rng.normal(size=(batch, queries, features)), rng.normal(size=(batch, mem_len, features))
    u, v = rng.normal(size=(2, heads, head_size))
    keys = mem_len + queries
    filled = np.array([5, 2])
    visible = (np.arange(keys) <= mem_len + np.arange(queries)[:, None]) & (
        np.arange(keys) >= mem_len - filled[:, None]
    )[:, None]
    encoding = transformer_xl.sinusoids(keys, features)
    got = layer.attend(*(jnp.asarray(a, jnp.float32) for a in (x, past, encoding, u, v)), jnp.asarray(visible))

    def heads_of(y):
        return y.reshape(*y.shape[:-1], heads, head_size)

    def encode(distance):  # the sinusoids from their equation, not from a table
        angles = distance / 10_000 ** (np.arange(0, features, 2) / features)
        return np.concatenate([np.sin(angles), np.cos(angles)])

    qkv = np.asarray(layer.qkv.kernel[...], np.float64)
    wr = np.asarray(layer.positions.kernel[...], np.float64)
    context = np.concatenate([past, x], axis=1)
    expected = np.zeros((batch, queries, heads, head_size))
    for b in range(batch):
        q, k, val = (heads_of(part) for part in np.split(context[b] @ qkv, 3, axis=-1))
        for i in range(queries):
            for h in range(heads):
                at = mem_len + i
                seen = range(mem_len - filled[b], at + 1)
                scores = [
                    ((q[at, h] + u[h]) @ k[j, h] + (q[at, h] + v[h]) @ heads_of(encode(at - j) @ wr)[h])
                    / math.sqrt(head_size)
                    for j in seen
                ]
                weights = np.exp(scores) / np.sum(np.exp(scores))
                expected[b, i, h] = weights @ val[list(seen), h]
    np.testing.assert_allclose(got, expected.reshape(batch, queries, -1), rtol=1e-4, atol=1e-5)


def test_adaptive_softmax_is_a_distribution_over_all_words():
    model = tiny_txl()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)), jnp.float32)
    embedding = model.embed.embedding[...] * 50
    log_probs = [np.asarray(model.softmax.log_probs(x, embedding, np.full(3, word))) for word in range(50)]
    np.testing.assert_allclose(np.sum(np.exp(log_probs), axis=0), 1, rtol=1e-5)


def test_adaptive_softmax_reads_its_clusters_from_the_end_and_begins_them_at_the_cutoffs():
    model = tiny_txl()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16)), jnp.float32)
    embedding = np.asarray(model.embed.embedding[...]) * 50
    clusters = model.softmax.clusters
    assert clusters is not None
    head = np.asarray(jax.nn.log_softmax(jnp.concatenate([x @ embedding[:20].T, clusters(x)], axis=1)))[0]
    for word, cluster, (first, last) in ((20, 1, (20, 30)), (29, 1, (20, 30)), (30, 2, (30, 50)), (49, 2, (30, 50))):
        tail = np.asarray(jax.nn.log_softmax(x @ embedding[first:last].T))[0]
        got = model.softmax.log_probs(x, jnp.asarray(embedding), jnp.array([word]))[0]
        assert got == pytest.approx(head[22 - cluster] + tail[word - first], rel=1e-4)
    got = model.softmax.log_probs(x, jnp.asarray(embedding), jnp.array([19]))[0]
    assert got == pytest.approx(head[19], rel=1e-4)


def test_the_memory_makes_two_segments_one():
    model = tiny_txl(mem_len=8)
    model.eval()
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 8)))
    whole, _ = call(model, tokens, model.empty_memory(2))
    first, memory = call(model, tokens[:, :4], model.empty_memory(2))
    second, memory = call(model, tokens[:, 4:], memory)
    # With two layers a token depends on the past of its past. The outputs are equal only if the memory holds all of it.
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(memory.filled, [8, 8])


def test_no_position_sees_its_future_and_an_empty_memory_is_not_attended():
    model = tiny_txl()
    model.eval()
    tokens = jnp.zeros((1, 4), int)
    changed, _ = call(model, tokens.at[0, 3].set(7), model.empty_memory(1))
    plain, memory = call(model, tokens, model.empty_memory(1))
    np.testing.assert_array_equal(changed[0, :3], plain[0, :3])
    garbage = memory._replace(hidden=jnp.full_like(memory.hidden, 9.0), filled=jnp.zeros(1, jnp.int32))
    np.testing.assert_allclose(call(model, tokens, garbage)[0], plain, rtol=1e-5, atol=1e-6)


def test_the_loss_by_chunks_is_the_loss():
    model = tiny_txl(chunks=4)
    model.eval()
    rng = np.random.default_rng(0)
    tokens, targets = array(rng.integers(0, 50, (2, 2, 4)))
    losses, _ = nnx.jit(lambda model, *args: model.losses(*args))(model, tokens, targets, model.empty_memory(2))
    x, _ = call(model, tokens, model.empty_memory(2))
    flat = model.softmax.log_probs(x.reshape(8, 16), model.embed.embedding[...], targets.reshape(-1))
    np.testing.assert_allclose(losses.reshape(-1), -flat, rtol=1e-5)


# Tacotron2


def tiny_tacotron():
    return models.Tacotron2(symbols=9, mels=4, features=8, rnn=6, prenet=5, rngs=nnx.Rngs(0))


def speech(frames=7, symbols=6):
    rng = np.random.default_rng(0)
    return (
        array(rng.integers(0, 9, (2, symbols))),
        jnp.array([5, 3]),
        array(rng.normal(size=(2, frames, 4)), jnp.float32),
        jnp.array([6, 4]),
    )


@pytest.mark.slow
def test_the_prenets_dropout_is_on_in_evaluation_and_the_others_are_not():
    model = tiny_tacotron()
    model.eval()
    prenet = model.decoder.prenet
    x = jnp.ones((50, 4))
    one, two = (prenet(x, rngs=nnx.Rngs(dropout=seed)) for seed in (1, 2))
    assert (one != two).any()
    symbols, lengths, *_ = speech()
    embedded = model.embed(symbols)
    np.testing.assert_array_equal(*(call(model.encoder, embedded, lengths, rngs=nnx.Rngs(seed)) for seed in (1, 2)))
    zeros = [float(jnp.mean(prenet(x, rngs=nnx.Rngs(dropout=seed)) == 0)) for seed in range(5)]
    assert np.mean(zeros) > 0.5  # dropout zeroes half of the entries, and ReLU more


class PrenetWithoutDropout(nnx.Module):
    def __init__(self, prenet):
        self.dense1, self.dense2 = prenet.dense1, prenet.dense2

    def __call__(self, x, rngs):
        return nnx.relu(self.dense2(self.dense1(x)))


@pytest.mark.slow
def test_what_is_rounded_up_past_the_longest_of_a_batch_changes_nothing():
    model = tiny_tacotron()
    symbols, lengths, mels, mel_lengths = speech()
    exact = symbols[:, :5], lengths, mels[:, :6], mel_lengths
    padded = (
        jnp.pad(symbols, ((0, 0), (0, 3))),
        lengths,
        jnp.pad(mels, ((0, 0), (0, 4), (0, 0)), constant_values=7),
        (mel_lengths),
    )

    def run(args):
        # Run without dropout, because its masks depend on the size. Batch norm uses the batch's statistics, as in
        # training.
        copy = nnx.clone(model)
        copy.eval()
        for _, node in nnx.iter_graph(copy):
            if isinstance(node, nnx.BatchNorm):
                node.use_running_average = False
        copy.decoder.prenet = PrenetWithoutDropout(copy.decoder.prenet)
        out = call(copy, *args, rngs=nnx.Rngs(0))
        return [np.asarray(a[:, :6]) for a in out], [
            np.asarray(node.mean[...]) for _, node in nnx.iter_graph(copy) if isinstance(node, nnx.BatchNorm)
        ]

    (values, means), (padded_values, padded_means) = run(exact), run(padded)
    for a, b in zip(values + means, padded_values + padded_means, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_encoder_reads_each_sequence_alone():
    model = tiny_tacotron()
    model.eval()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)), jnp.float32)
    lengths = jnp.array([6, 3])
    ahead = tacotron2.run_lstm(model.encoder.forward, x)
    back = tacotron2.reverse(tacotron2.run_lstm(model.encoder.backward, tacotron2.reverse(x, lengths)), lengths)
    cell = model.encoder.backward
    for row, length in enumerate((6, 3)):
        carry = (jnp.zeros((1, 4)), jnp.zeros((1, 4)))
        for t in reversed(range(length)):
            carry, output = cell(carry, x[row : row + 1, t])
            np.testing.assert_allclose(back[row, t], output[0], rtol=1e-5, atol=1e-6)
    carry = (jnp.zeros((1, 4)), jnp.zeros((1, 4)))
    for t in range(6):
        carry, output = model.encoder.forward(carry, x[:1, t])
        np.testing.assert_allclose(ahead[0, t], output[0], rtol=1e-5, atol=1e-6)
    encoded = model.encoder(x, lengths)
    assert not encoded[1, 3:].any() and encoded[1, :3].all()


def test_attention_ignores_symbols_past_the_end_and_a_frame_sees_only_frames_before_it():
    model = tiny_tacotron()
    model.eval()
    symbols, lengths, mels, mel_lengths = speech()
    _, _, gate = call(model, symbols, lengths, mels, mel_lengths, rngs=nnx.Rngs(0))
    _, _, later = call(model, symbols, lengths, mels.at[:, 4].add(1), mel_lengths, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(gate[:, :5], later[:, :5])
    assert (gate[:, 5:] != later[:, 5:]).any()
    memory = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 8)), jnp.float32)
    attention = model.decoder.attention
    keys = attention.memory_layer(memory)
    visible = tacotron2.within(jnp.array([2]), 4)
    _, weights = call(attention, jnp.ones((1, 6)), memory, keys, jnp.zeros((1, 4, 2)), visible)
    assert (weights[0, 2:] == 0).all()
    assert float(weights.sum()) == pytest.approx(1)


# ViT


def test_the_decoder_puts_a_patchs_pixels_as_pixel_shuffle_does():
    model = models.ViTMIM(features=8, layers=1, heads=2, hidden=8, image_size=8, patch=4, rngs=nnx.Rngs(0))
    bias = jnp.arange(3 * 16.0)
    model.decoder.kernel[...] = jnp.zeros_like(model.decoder.kernel[...])
    model.decoder.bias[...] = bias
    out = call(model, jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 2, 2), bool))
    # In PyTorch output channel c * 16 + 4 i + j of a patch is pixel (i, j) of colour c.
    expected = np.asarray(bias).reshape(3, 4, 4).transpose(1, 2, 0)
    np.testing.assert_array_equal(out[0, 4:, :4], expected)
    np.testing.assert_array_equal(out[0, :4, 4:], expected)


def test_masked_patches_are_not_seen():
    model = models.ViTMIM(features=8, layers=1, heads=2, hidden=8, image_size=8, patch=4, rngs=nnx.Rngs(0))
    masked = jnp.zeros((1, 2, 2), bool).at[0, 0, 1].set(True)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32)
    hidden = call(model, images.at[0, :4, 4:].set(5), masked)
    np.testing.assert_array_equal(hidden, call(model, images, masked))
    assert (call(model, images.at[0, 4:, 4:].set(5), masked) != hidden).any()
