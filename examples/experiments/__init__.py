"""The papers' experiments, by name."""

from examples.experiments import cifar, images, mnist, sequences, synthetic
from examples.experiments.config import METHODS, Config, Method

CONFIGS = {config.name: config for module in (synthetic, mnist, cifar, images, sequences) for config in module.CONFIGS}

__all__ = ["CONFIGS", "METHODS", "Config", "Method"]
