"""Every factory of the library, with settings that give zeros on small problems, for tests of all factories."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ramda_jax


@dataclasses.dataclass(frozen=True)
class Factory:
    """A method, and a learning rate that suits problems of scale 1."""

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
