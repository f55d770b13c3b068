"""All architectures by family."""

from benchmarks.zoo.families.others import dense, experts, generative, pairs, parameters
from benchmarks.zoo.families.sequences import attention, decoders, decoding, recurrent, signals
from benchmarks.zoo.families.vision import blocks, convolutions, maps, residual

_VISION = (convolutions, blocks, residual, maps)
_SEQUENCES = (attention, decoders, decoding, recurrent, signals)
_OTHERS = (dense, parameters, generative, pairs, experts)
FAMILIES = {family.TITLE: family.ENTRIES for family in (*_VISION, *_SEQUENCES, *_OTHERS)}
#: Maps names to (family, architecture).
ENTRIES = {name: (family, entry) for family, entries in FAMILIES.items() for name, entry in entries.items()}
