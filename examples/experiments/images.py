"""Experiments on ImageNet, and masked image modelling."""

import ramda_jax
from examples import models
from examples.experiments.config import FIVE_SVDS, LASSO, NEURIPS, Config, Method
from examples.experiments.tasks import FolderClassification, MaskedImages

imagenet_resnet50 = Config(
    name="imagenet_resnet50",
    paper=NEURIPS,
    table="Table 3",
    row="ResNet50, ImageNet",
    task=FolderClassification(models.imagenet_resnet50, smoothing=0.1),
    regularizer=LASSO,
    methods={
        "msgd": Method(1e-1, weight_decay=1e-4),
        "prox_sgd": Method(1e-1, 1.25e-5),
        "prox_adamw": Method(1e-3, 1.3e-7),
        "rmda": Method(1.0, 1.35e-5, averaging=0.1),
        "ramda": Method(1e-2, 4e-7, averaging=0.01),
    },
    length=160,
    milestones=(40, 80, 120),
    batch_size=256,
    reported={
        "msgd": ("77.14 ± 0.04", "-"),
        "prox_sgd": ("73.50 ± 0.20", "17.54 ± 1.26"),
        "prox_adamw": ("74.17 ± 0.08", "20.29 ± 0.22"),
        "rmda": ("74.47 ± 0.08", "25.20 ± 1.69"),
        "ramda": ("74.53 ± 0.10", "29.19 ± 0.94"),
    },
    notes="The paper's code takes one step with gradients of zero before the first (Horovod makes the optimizer's "
    "state by it); not here. It trains in float16 with loss scaling; here in float32, or --dtype bfloat16. "
    "Its batch norms see the 32 images of a GPU, here the whole batch of 256, on several devices too.",
)

vit_mim = Config(
    name="vit_mim",
    paper=NEURIPS,
    table="Table 9",
    row="ViT masked image modelling, CIFAR10",
    task=MaskedImages(),
    regularizer={r"layers/.*/kernel": ramda_jax.NuclearNorm()},
    methods={
        # In practice the script's AdamW has a decay of 0.
        "adamw": Method(1e-3, schedule="linear"),
        "prox_sgd": Method(10.0, 2.5e-5, schedule="linear"),
        "prox_adamw": Method(1e-3, 1e-4, schedule="linear", solver=FIVE_SVDS),
        "rmda": Method(10.0, 1e-5, averaging=0.1),
        "ramda": Method(1e-2, 1e-5, averaging=0.1, solver=FIVE_SVDS),
    },
    length=300,
    milestones=(100, 200),
    measure="low_rank",
    reported={
        "adamw": (".0865 ± .0001", "-"),
        "prox_sgd": (".1042 ± .0003", "82.60 ± 0.34"),
        "prox_adamw": (".1120 ± .0019", "82.64 ± 2.5"),
        "rmda": (".1054 ± .0031", "86.23 ± 0.41"),
        "ramda": (".1035 ± .0016", "86.20 ± 0.35"),
    },
    notes="The paper reports the epoch of lowest validation loss of the last 50; here it is the last epoch, and the "
    "report has the lowest loss of all epochs beside it. The script's averaging counts from 0, so that the first two "
    "steps of the last stage have the same weight; not here.",
)

CONFIGS = [imagenet_resnet50, vit_mim]
