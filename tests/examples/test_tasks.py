"""The tasks' losses against NumPy, where a mistake raises no error, and the settings of methods that change them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from examples.data.arrays import Split
from examples.data.ljspeech import Speech as Clips
from examples.experiments import CONFIGS
from examples.experiments.sequence_tasks import Speech
from examples.experiments.tasks import Classification, MaskedImages
from examples.training.optimizers import make_optimizer, make_plan
from tests.tiny import array


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_the_cross_entropy_with_the_smoothed_labels(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    task = Classification(None, None, smoothing=smoothing)
    loss, _ = task.loss(lambda images, rngs: images, Split(jnp.asarray(logits), labels), (), jax.random.key(0))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    assert float(loss) == pytest.approx(-(targets * log_probs).sum(-1).mean(), rel=1e-5)


def test_rigl_of_the_paper_smooths_its_labels_and_the_others_do_not():
    config = CONFIGS["resnet50_cifar10_l1_iclr"]
    assert {name: config.task_of(name).smoothing for name in ("rigl", "rmda", "msgd")} == {
        "rigl": 0.1,
        "rmda": 0.0,
        "msgd": 0.0,
    }
    assert CONFIGS["imagenet_resnet50"].task_of("ramda").smoothing == 0.1
    assert CONFIGS["transformer_xl"].task_of("rigl") is CONFIGS["transformer_xl"].task  # its loss has no smoothing


def test_the_speech_loss_has_the_gate_from_the_last_frame_on_and_counts_to_the_longest_clip():
    rng = np.random.default_rng(0)
    lengths, frames, longest = np.array([3, 5]), 8, 5  # padded beyond the longest clip, as the loader does
    mels = rng.normal(size=(2, frames, 4)).astype(np.float32)
    mels[0, 3:] = mels[1, 5:] = 0
    before, after = (rng.normal(size=mels.shape).astype(np.float32) for _ in range(2))
    gate = rng.normal(size=(2, frames)).astype(np.float32)
    batch = Clips(np.ones((2, 6), np.int32), np.array([6, 4]), mels, lengths)
    loss, _ = Speech().loss(lambda *args, rngs: (before, after, gate), batch, (), jax.random.key(0))

    cut = slice(0, longest)
    expected = np.mean((before - mels)[:, cut] ** 2) + np.mean((after - mels)[:, cut] ** 2)
    entropy = 0.0
    for clip, length in enumerate(lengths):
        for frame in range(longest):
            probability = 1 / (1 + math.exp(-gate[clip, frame]))
            entropy -= math.log(probability if frame >= length - 1 else 1 - probability)
    assert float(loss) == pytest.approx(expected + entropy / (2 * longest), rel=1e-5)


def test_the_loss_of_masked_images_is_the_mean_over_masked_pixels_and_colours():
    task = MaskedImages(side=28, grid=14, blocks=7)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    shares = []

    def off_by(images, masked):
        """Errors of 1, 2 and 3 for masked pixels, and of 50 elsewhere."""
        pixels = jnp.repeat(jnp.repeat(masked, 2, axis=1), 2, axis=2)[..., None]
        shares.append(float(jnp.mean(masked)))
        return images + jnp.where(pixels, jnp.array([1.0, -2.0, 3.0]), 50.0)

    loss, _ = task.loss(off_by, Split(images, None), (), jax.random.key(0))
    assert float(loss) == pytest.approx(2.0, rel=1e-5)
    assert shares == [pytest.approx(30 / 49)]  # ceil(0.6 * 49) blocks


def first_state(config, method, params, grads):
    optimizer = make_optimizer(method, config, make_plan(config, config.methods[method], 10, 1.0), params)
    return optimizer.update(grads, optimizer.init(params), params)


@pytest.mark.slow
def test_gradients_are_clipped_before_the_optimizer_and_before_the_weights_decay():
    config = CONFIGS["tacotron2"]
    params = {"dense": {"kernel": jnp.full((2, 2), 1e4), "bias": jnp.zeros(2)}}
    grads = {"dense": {"kernel": jnp.full((2, 2), 50.0), "bias": jnp.zeros(2)}}  # their norm is 100
    _, state = first_state(config, "adam", params, grads)
    mu = optax.tree.get(state, "mu")["dense"]["kernel"]
    np.testing.assert_allclose(mu, 0.1 * (0.5 + 1e-6 * 1e4), rtol=1e-5)  # clipped to a norm of 1, then decayed
    _, state = first_state(config, "ramda", params, grads)
    rate = config.methods["ramda"].learning_rate
    sums = optax.tree.get(state, "grad_sum")["dense"]["kernel"]
    np.testing.assert_allclose(sums, rate * 0.5, rtol=1e-5)


def test_the_solver_that_a_method_names_is_taken():
    config = CONFIGS["fashion_lowrank"]
    assert config.methods["ramda"].solver == config.methods["prox_adamw"].solver
    rng = np.random.default_rng(0)
    params = {"dense": {"kernel": array(rng.normal(size=(6, 5)), jnp.float32)}}
    grads = {"dense": {"kernel": array(rng.normal(size=(6, 5)), jnp.float32)}}

    def steps(solver):
        changed = config.with_method("ramda", solver=solver, strength=10.0)
        state = first_state(changed, "ramda", params, grads)[1]
        return int(ramda_jax.solver_info(state).num_steps)

    named = config.methods["ramda"].solver
    assert steps(ramda_jax.ProximalGradient(max_steps=2)) == 2 < steps(named) <= 5
    assert config.methods["ramda"].as_dict()["solver"].startswith("ProximalGradient(max_steps=5, rtol=0.001")


def test_a_borrowed_msgd_falls_where_the_neurips_papers_does():
    def ends(name):
        config = CONFIGS[name]
        return make_plan(config, config.methods["msgd"], 1, 1.0).ends

    assert ends("vgg19_cifar10") == ends("vgg19_cifar10_iclr") == (200, 400, 600, 800)
    assert ends("lenet5_mnist_iclr") == (100, 200, 300, 400)
    assert ends("imagenet_resnet50") == (40, 80, 120)  # its own
