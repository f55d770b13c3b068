"""Every factory of the library with settings under which it makes zeros on small problems: what batteries run over."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ramda_jax


@dataclasses.dataclass(frozen=True)
class Factory:
    """A method, a learning rate it does well with on problems of scale 1, and its other settings."""

    make: Callable[..., Any]
    learning_rate: float
    averages: bool = True  # whether it takes `averaging`; otherwise its c is 1

    @property
    def name(self):
        return self.make.__name__

    def __call__(self, regularizer=None, strength=None, *, averaging=1.0, learning_rate=None, **settings):
        if self.averages:
            settings["averaging"] = averaging
        rate = self.learning_rate if learning_rate is None else learning_rate
        return self.make(rate, regularizer, strength, **settings)


FACTORIES = [
    Factory(ramda_jax.ramda, 0.1),
    Factory(ramda_jax.rmda, 0.5),
    Factory(ramda_jax.prox_sgd, 0.5, averages=False),
    Factory(ramda_jax.prox_adamw, 0.3, averages=False),
    Factory(ramda_jax.prox_ssi, 0.03, averages=False),
]


def factory_id(factory):
    return factory.name
