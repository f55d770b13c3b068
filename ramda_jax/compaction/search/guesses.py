"""Guesses which arrays determine the sizes that a model remembers. Each guess is proved like everything else.

In hand-written attention `self.num_heads = 4` is a number, and no array shows that it is a size. If a width of 4 with
indices on the module's arrays shrinks to 2, the number may be that width, and the model with the number 2 is tried. A
number is changed only if the small model cannot be traced otherwise. So a number that the trace does not see, such as
an equal number of classes, stays.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from ramda_jax.compaction.adapters.sizes.remembered import Remembered, Sizes
from ramda_jax.compaction.planning.plan import Plan


@dataclasses.dataclass(frozen=True)
class Source:
    """A size that a number may stand for.

    Attributes:
        leaf: the path of an array, from the module that remembers the number.
        axis: one of its axes.
        widths: which of the widths whose product is that axis the number counts, such as 4 heads on an axis of 32, or 2
            heads of keys, each of which 2 heads of queries read. Empty for the axis itself.
    """

    leaf: str
    axis: int
    widths: tuple[int, ...]


#: The number is not changed, whatever the layer's arrays say.
STAYS = Source("", 0, ())

#: If an axis is a product of more widths than this, no number is assumed to count a part of it.
_MOST_FACTORS = 6

#: A mapping from (class of modules, attribute) to what the attribute counts in all modules of the class.
Guess = Mapping[tuple[str, str], Source]


class Guesses:
    """The candidates for the numbers that a model remembers, in the small model of a plan."""

    def __init__(self, places: Sequence[Remembered], plan: Plan) -> None:
        self.places = places
        self._plan = plan
        self._leaves = _by_module(plan)
        self._on_axis: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for width in plan.widths:
            for member in width.members:
                path, _, axis = member.removesuffix("]").rpartition("[")
                self._on_axis.setdefault((path, int(axis)), []).append((width.size, len(width.kept)))
        self._sources = {place: self._find(place) for place in places}

    def _find(self, place):
        """A dict from the sources whose size is the number to their sizes in the small model."""
        module = place.module
        while True:
            found = dict(self._at(module, place.value))
            # A module without arrays of that size may count the arrays of a module that contains it.
            if found or not module:
                return found
            module = module.rpartition("/")[0]

    def _at(self, module, value) -> Iterator[tuple[Source, int]]:
        for relative, path in self._leaves.get(module, ()):
            leaf = self._plan.leaves[path]
            for axis, (size, small) in enumerate(zip(leaf.shape, leaf.small_shape, strict=True)):
                if size == value:
                    yield Source(relative, axis, ()), small
                factors = self._on_axis.get((path, axis), ())
                if not 1 < len(factors) < _MOST_FACTORS or math.prod(whole for whole, _ in factors) != size:
                    continue
                for count in range(1, len(factors)):
                    for chosen in itertools.combinations(range(len(factors)), count):
                        if math.prod(factors[i][0] for i in chosen) == value:
                            yield Source(relative, axis, chosen), math.prod(factors[i][1] for i in chosen)

    def options(self) -> dict[tuple[str, str], list[Source]]:
        """For each number that may change, the sources that it may count; equivalent sources are listed once.

        Numbers whose sources all agree come first.
        """
        result = {}
        certain = {}
        for place, sources in self._sources.items():
            key = (place.kind, place.name)
            for source, small in sources.items():
                if small != place.value:
                    result.setdefault(key, {}).setdefault(source, None)
            certain[key] = certain.get(key, True) and len(set(sources.values())) <= 1
            if place.name == "feature_group_count":
                result.setdefault(key, {})[STAYS] = None
        options = {}
        for key in sorted(result, key=lambda key: not certain[key]):
            seen = {}
            for source in result[key]:
                seen.setdefault(tuple(sorted(self.sizes({key: source}).items())), source)
            options[key] = list(seen.values())
        return options

    def certain(self) -> set[tuple[str, str]]:
        """The numbers for which all sources agree, in all modules."""
        unsure = {(p.kind, p.name) for p, sources in self._sources.items() if len(set(sources.values())) > 1}
        return {(place.kind, place.name) for place in self.places} - unsure

    def sizes(self, guess: Guess) -> Sizes:
        """The numbers of the small model under a guess."""
        result = {}
        for place, sources in self._sources.items():
            source = guess.get((place.kind, place.name))
            if source is None:
                continue
            changed = {small for small in sources.values() if small != place.value}
            if source == STAYS:
                if self._may_stay(place):
                    result[place.module, place.name] = place.value
            elif sources.get(source, place.value) != place.value:
                result[place.module, place.name] = sources[source]
            elif source not in sources and len(changed) == 1:
                result[place.module, place.name] = changed.pop()
        return result

    def _may_stay(self, place):
        """Whether the remaining outputs of a convolution can be divided into as many groups as before."""
        kernel = self._plan.leaves.get(f"{place.module}/kernel" if place.module else "kernel")
        return kernel is None or kernel.small_shape[-1] % place.value == 0


def _by_module(plan):
    """A dict from the paths of modules to pairs (path from there, path) of the arrays in them."""
    result = {}
    for path in plan.leaves:
        parts = path.split("/")
        # The paths of linen's variables begin with a collection.
        for start in (0, 1):
            for end in range(start, len(parts)):
                result.setdefault("/".join(parts[start:end]), []).append(("/".join(parts[end:]), path))
    return result
