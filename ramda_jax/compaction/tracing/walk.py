"""The walk over a traced program: labels for every axis of every value, and the readers.

Each value has a label for each axis (`Indices`). A value that depends on parameters alone also has a recipe (`Recipe`).
The bodies of `jit`, `remat`, `custom_jvp` and `custom_vjp` are walked as if they replaced the call. For the bodies of
`scan`, `while` and `cond`, the values that a loop carries in are unified with those that it carries out. Walking a body
once is enough: unions only add constraints, and the unions of a second pass would hold for the first one too.
"""

import collections
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ramda_jax.compaction.tracing.jaxprs import axes_without_change, body_of_call, scan_counts, used_equations
from ramda_jax.compaction.tracing.labels.indices import Indices
from ramda_jax.compaction.tracing.program import Reader, Value, Visit
from ramda_jax.compaction.tracing.recipes import Applied, Constant, Recipe, ScanStep
from ramda_jax.compaction.tracing.rules import RULES, Rule


class Walk:
    """The state of one walk.

    Attributes:
        rules: from names of primitives to rules.
        indices: the nodes.
        visits: all equations on which an output depends, in order.
        aside: the other equations.
        readers: all contractions with parameters.
        opaque: how often a primitive without a rule was met, by name.
        used: for each jaxpr that was walked, in order, which outputs of each of its equations are needed.
        like: the walk of the whole program, if this walks the small program; else None. The same outputs count as
            needed here. On its own, the small program would not need outputs that only lead to arrays without entries.
    """

    def __init__(self, rules: Mapping[str, Rule] | None = None, like: "Walk | None" = None) -> None:
        self.rules: Mapping[str, Rule] = RULES if rules is None else {**RULES, **rules}
        self.indices: Indices = Indices()
        self.visits: list[Visit] = []
        self.aside: list[Visit] = []
        self.readers: list[Reader] = []
        self.opaque: collections.Counter[str] = collections.Counter()
        self.used: list[list[list[bool]]] = []
        self._like: Iterator[list[list[bool]]] = iter(like.used if like is not None else ())
        self._values = 0
        self._scans = 0

    def value(
        self, aval: Any, labels: Sequence[np.ndarray], recipe: Recipe | None = None, literal: Any = None
    ) -> Value:
        """Makes a new value. Labels that do not fit the shape are an error of a rule."""
        shape = tuple(getattr(aval, "shape", ()))
        assert tuple(map(len, labels)) == shape, (shape, labels)
        self._values += 1
        return Value(self._values, shape, getattr(aval, "dtype", None), list(labels), recipe, literal)

    def constant(self, array: Any) -> Value:
        """The value of an array that the program closes over. The axes along which it varies are frozen.

        An axis along which it is constant may have another length, for example where the code takes it from a shape.
        """
        reason = "an array that the program closes over"
        same = axes_without_change(array)
        labels = [
            self.indices.axis(size, None if axis in same else reason) for axis, size in enumerate(np.shape(array))
        ]
        dtype = array.dtype if hasattr(array, "dtype") else np.asarray(array).dtype
        aval = jax.ShapeDtypeStruct(np.shape(array), dtype)
        return self.value(aval, labels, Constant(array), literal=array)

    def run(self, closed: Any, arguments: Sequence[Value], used: Sequence[bool] | None = None) -> list[Value]:
        """Walks a jaxpr, closed or not, whose inputs have the values `arguments`; returns the values of its outputs.

        `used` says which of the outputs are needed (None: all). Equations on which none of these depends are walked
        aside.
        """
        constants = [self.constant(array) for array in getattr(closed, "consts", ())]
        return self._body(getattr(closed, "jaxpr", closed), constants, arguments, used)

    def run_aside(self, closed: Any, arguments: Sequence[Value]) -> None:
        """Walks a jaxpr that must run for the same arguments, but whose outputs are not compared."""
        with self._aside():
            self.run(closed, arguments)

    def _body(self, jaxpr, constants, arguments, used):
        environment = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

        def read(atom):
            # Not by class, because the class of a literal has different names in different versions of JAX.
            return self.constant(atom.val) if hasattr(atom, "val") else environment[atom]

        for equation, of_outputs in zip(jaxpr.eqns, self._used(jaxpr, used), strict=True):
            with self._aside(not (any(of_outputs) or equation.effects)):
                outputs = self._equation(equation, [read(atom) for atom in equation.invars], of_outputs)
            environment.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _used(self, jaxpr, used):
        found = [of_outputs for _, of_outputs in used_equations(jaxpr, used)]
        like = next(self._like, [])
        if list(map(len, like)) == list(map(len, found)):
            found = like
        self.used.append(found)
        return found

    @contextlib.contextmanager
    def _aside(self, is_aside=True):
        """Walks equations on which no output depends: they must run in the small model, but freeze nothing."""
        before = self.visits, self.readers, self.opaque, self.indices.can_freeze
        if is_aside:
            self.visits, self.readers, self.opaque = self.aside, [], collections.Counter()
            self.indices.can_freeze = False
        try:
            yield
        finally:
            self.visits, self.readers, self.opaque, self.indices.can_freeze = before

    def _equation(self, equation, inputs, used):
        name = equation.primitive.name
        body = body_of_call(equation)
        if body is not None:
            return self.run(body, inputs, used)
        control = {
            "scan": self._scan,
            "while": self._while,
            "cond": self._cond,
            "custom_linear_solve": self._linear_solve,
        }.get(name)
        if control is not None:
            return control(equation, inputs)
        visit = Visit(equation, inputs, [])
        if not any(math.prod(getattr(variable.aval, "shape", ())) for variable in equation.outvars):
            visit.ignored.update(range(len(inputs)))
        rule = self.rules.get(name)
        labels = rule.labels(self, visit) if rule is not None else None
        if labels is None:
            if any(value.shape for value in inputs) or any(
                v.aval.shape for v in equation.outvars if hasattr(v.aval, "shape")
            ):
                self.opaque[name] += 1
            labels = self._freeze_all(visit, f"{name}, for which there is no rule")
        recipes = [value.recipe for value in inputs]
        known = None not in recipes and recipes
        for i, (variable, own) in enumerate(zip(equation.outvars, labels, strict=True)):
            recipe = Applied(equation, tuple(recipes), i) if known else None
            visit.outputs.append(self.value(variable.aval, own, recipe))
        self.visits.append(visit)
        return visit.outputs

    def _freeze_all(self, visit, reason):
        for value in visit.inputs:
            for label in value.labels:
                self.indices.freeze(label, reason)
        shapes = [getattr(variable.aval, "shape", ()) for variable in visit.equation.outvars]
        return [[self.indices.axis(size, reason) for size in shape] for shape in shapes]

    def unify(self, a: Value, b: Value) -> None:
        """Makes the labels of two values of one shape the same."""
        for label, other in zip(a.labels, b.labels, strict=True):
            self.indices.unify(label, other)

    def _enter(self, equation, inputs, arguments):
        """Records the values that a body begins with, and returns them."""
        self.visits.append(Visit(equation, inputs, arguments))
        return arguments

    def _leave(self, equation, results, labels):
        """Records which values of the bodies become the outputs, and returns the outputs."""
        outputs = [self.value(v.aval, own) for v, own in zip(equation.outvars, labels, strict=True)]
        self.visits.append(Visit(equation, results, outputs))
        return outputs

    def _loop_arguments(self, body, start, values):
        """The values of the body's carry. A value has a recipe only if the loop returns it unchanged."""
        variables = body.invars[start : start + len(values)]
        same = [inside is outside for inside, outside in zip(variables, body.outvars, strict=False)]
        return [
            self.value(value, value.labels, value.recipe if stays else None)
            for value, stays in zip(values, same, strict=True)
        ]

    def _linear_solve(self, equation, inputs):
        """Walks the solver's body, which gives the results. The other bodies are for derivatives."""
        lengths = list(equation.params["const_lengths"])
        start = sum(lengths[:2])
        constants = inputs[start : start + lengths[2]]
        return self.run(equation.params["jaxprs"].solve, [*constants, *inputs[sum(lengths) :]])

    def _scan(self, equation, inputs):
        params = equation.params
        num_consts, num_carry = scan_counts(params)
        body = params["jaxpr"]
        constants, carry = inputs[:num_consts], inputs[num_consts : num_consts + num_carry]
        self._scans += 1
        number, steps = self._scans, []
        # All values that are scanned over or stacked share this axis.
        axis = self.indices.axis(params["length"], "the axis of a scan")
        for value in inputs[num_consts + num_carry :]:
            self.indices.unify(value.labels[0], axis)
            recipe = ScanStep(value.recipe, number) if value.recipe is not None else None
            aval = jax.ShapeDtypeStruct(value.shape[1:], value.dtype) if value.dtype is not None else None
            steps.append(self.value(aval, value.labels[1:], recipe))
        inside = self._loop_arguments(getattr(body, "jaxpr", body), num_consts, carry)
        results = self.run(body, [*constants, *self._enter(equation, inputs, [*inside, *steps])])
        for before, after in zip(inside, results, strict=False):
            self.unify(before, after)
        stacked = [[axis, *value.labels] for value in results[num_carry:]]
        return self._leave(equation, results, [*(value.labels for value in results[:num_carry]), *stacked])

    def _while(self, equation, inputs):
        params = equation.params
        cond_consts, body_consts = params["cond_nconsts"], params["body_nconsts"]
        carry = inputs[cond_consts + body_consts :]
        inside = self._loop_arguments(params["body_jaxpr"].jaxpr, body_consts, carry)
        self._enter(equation, inputs, inside)
        tests = self.run(params["cond_jaxpr"], [*inputs[:cond_consts], *inside])
        results = self.run(params["body_jaxpr"], [*inputs[cond_consts : cond_consts + body_consts], *inside])
        for before, after in zip(inside, results, strict=True):
            self.unify(before, after)
        return self._leave(equation, [*tests, *results], [value.labels for value in results])

    def _cond(self, equation, inputs):
        self._enter(equation, inputs, [])
        branches = [self.run(branch, inputs[1:]) for branch in equation.params["branches"]]
        for results in branches[1:]:
            for first, result in zip(branches[0], results, strict=True):
                self.unify(first, result)
        every = [value for results in branches for value in results]
        return self._leave(equation, every, [value.labels for value in branches[0]])
