"""All architectures by family."""

from benchmarks.zoo.families import (
    attention,
    convolutions,
    decoders,
    decoding,
    dense,
    experts,
    generative,
    recurrent,
    residual,
    staying,
)

FAMILIES = {
    family.TITLE: family.ENTRIES
    for family in (
        dense,
        convolutions,
        residual,
        attention,
        decoders,
        decoding,
        recurrent,
        generative,
        experts,
        staying,
    )
}
#: From names to (family, architecture).
ENTRIES = {name: (family, entry) for family, entries in FAMILIES.items() for name, entry in entries.items()}
