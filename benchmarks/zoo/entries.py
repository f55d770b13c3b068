"""All architectures by family."""

from benchmarks.zoo.families import dense

FAMILIES = {family.TITLE: family.ENTRIES for family in (dense,)}
