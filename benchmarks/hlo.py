"""Reads from a program's optimized HLO what it moves, launches and waits for."""

import math
import re
from typing import NamedTuple

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8}
SHAPE = re.compile(r"(pred|bf16|[suf]\d+)\[([\d,]*)\](?:\{[^}]*\})?")
INSTRUCTION = re.compile(r"\s*(?:ROOT )?(%[\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
# These move nothing: they are names for data in memory, or are counted separately.
FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "copy-done", "after-all", "partition-id"),
    *("while", "conditional", "call"),
}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


class Program(NamedTuple):
    """The work of every run of a program.

    Attributes:
        bytes: the bytes read and written in the device's memory, without the branches of conditionals and the bodies of
            loops.
        kernels: fusions, copies and calls of libraries.
        conditionals, loops: their numbers; a GPU waits for its host at each of them.
        collectives: a dict from names to numbers.
    """

    bytes: int
    kernels: int
    conditionals: int
    loops: int
    collectives: dict[str, int]


def read_program(text: str) -> Program:
    """The `Program` of an HLO text, as `jax.stages.Compiled.as_text` gives it."""
    computations = _computations(text)
    total, kernels = _traffic(computations, "ENTRY")
    collectives = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return Program(
        total,
        kernels,
        text.count(" conditional("),
        text.count(" while("),
        {name: count for name, count in collectives.items() if count},
    )


def _computations(text):
    """A dict from the names of computations to their lines; the name of the entry computation is ENTRY."""
    found, name = {}, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?(%[\w.\-]+) \(.*\{\s*$", line)
        if head:
            name = "ENTRY" if head.group(1) else head.group(2)
            found[name] = []
        elif line.startswith("}"):
            name = None
        elif name:
            found[name].append(line)
    return found


def _traffic(computations, name):
    """The bytes and kernels of a computation and of those that it calls."""
    made, total, kernels = {}, 0, 0
    for line in computations[name]:
        match = INSTRUCTION.match(line)
        if not match:
            continue
        result, shape, operation, rest = match.groups()
        made[result] = shape
        if operation == "call":
            for called in re.findall(r"to_apply=(%[\w.\-]+)", rest):
                moved, launched = _traffic(computations, called)
                total, kernels = total + moved, kernels + launched
        if operation in FREE:
            continue
        if operation.endswith("-start"):
            # An asynchronous copy, mostly into the chip's own memory, reads its data once.
            sizes = [_bytes(re.sub(r"\{[^}]*\}", "", found.group(0))) for found in SHAPE.finditer(shape)]
            total += min([size for size in sizes if size > 8] or [0])
        else:
            operands = re.findall(r"%[\w.\-]+", rest.split("), ")[0])
            total += _bytes(shape) + sum(_bytes(made.get(operand, "")) for operand in operands)
        kernels += operation in ("fusion", "custom-call", "copy")
    return total, kernels


def _bytes(text):
    """The bytes of those arrays in a piece of HLO that are in the device's main memory."""
    total = 0
    for match in SHAPE.finditer(text):
        if not re.search(r"S\([1-9]\)", match.group(0)):  # else in the chip's own memory
            total += SIZES.get(match.group(1), 0) * math.prod(int(n) for n in match.group(2).split(",") if n)
    return total
