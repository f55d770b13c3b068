"""Small faults in the package, and the tests that must find each fault.

    python -m tests.mutations                    # all of them, a quarter of an hour; or `make mutations`
    python -m tests.mutations --only solvers/    # faults in files with this in their names
    python -m tests.mutations --list             # a list of the faults, by folder

A test that cannot fail shows nothing. Each entry of `MUTATIONS` is a fault that a person could make: a wrong sign, an
axis too many, a missing factor, < for <=, a forgotten copy. Its tests must fail.

The tool works on copies of the checkout and never on the checkout itself. First it runs all tests of the entries
without any fault, and they must pass. Then it makes one fault after the other, runs the fault's tests and prints a
line: whether the fault was caught, the seconds, the file, the text before and after. The last line has the numbers of
caught and missed faults. The exit status is 1 if a fault was missed.

A fault must leave the package importable, and its tests must exist. If pytest ends in any other way than with failed
tests, the entry is wrong and counts as missed.
"""

import argparse
import ast
import collections
import concurrent.futures
import dataclasses
import itertools
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "ramda_jax"
# The seconds after which a fault's tests are stopped, so that a fault that makes a loop endless is caught too.
LIMIT = 240
# pytest's exit code if tests have failed. 2 to 5 mean an interrupted collection, an internal error, a usage error, and
# no tests.
TESTS_FAILED = 1


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A fault, and the tests that must find it.

    Attributes:
        file: a file of the package, relative to `ramda_jax/`.
        old: a text that occurs in the file exactly once.
        new: the text in its place.
        tests: pytest's selections, relative to the checkout: files, or single tests, which take less time.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self):
        return f"{self.file}: {shortened(self.old, self.new)} -> {shortened(self.new, self.old)}"


def shortened(text, other, width=60):
    """A text on one line, from shortly before its first difference from the other text."""
    pairs = enumerate(zip(text, other, strict=False))
    differ = next((place for place, (one, another) in pairs if one != another), min(len(text), len(other)))
    start = max(differ - 20, 0)
    line = ("..." if start else "") + " ".join(text[start:].split())
    return line if len(line) <= width else line[: width - 3] + "..."


MUTATIONS = [
    # Programs that are kept, and what is refused.
    Mutation(
        "xla/bounded_jit.py",
        "self._compiled.popitem(last=False)",
        "self._compiled.popitem(last=True)",
        ("tests/xla/test_bounded_jit.py::test_what_was_not_used_for_longest_goes_and_comes_back_right",),
    ),
    Mutation(
        "subproblem/running/batches.py",
        "if problem.model.metric.ndim == 0:",
        "if problem.model.metric.ndim == 9:",
        ("tests/test_bits.py::test_without_a_weight_equal_leaves_that_are_solved_together_are_the_centre",),
    ),
    Mutation(
        "subproblem/running/batches.py",
        "entries + size > 2 * tiles.TILE",
        "size > 2 * tiles.TILE",
        ("tests/subproblem/test_small_leaves.py::test_a_set_is_one_loop_over_a_limited_number_of_entries",),
    ),
    Mutation(
        "subproblem/running/batches.py",
        "len(members) < MANY and",
        "len(members) > MANY and",
        ("tests/subproblem/test_small_leaves.py::test_a_set_is_one_loop_over_a_limited_number_of_entries",),
    ),
    Mutation(
        "xla/many_leaves.py",
        "starts = [0, *itertools.accumulate(sizes)][:-1]",
        "starts = [0, *sizes][:-1]",
        ("tests/subproblem/test_small_leaves.py::test_solutions_are_those_of_leaves_solved_one_by_one",),
    ),
    Mutation(
        "numerics/cbrt.py",
        "cuda=jax.lax.cbrt",
        "cuda=jax.lax.sqrt",
        ("tests/builders/test_dual_averaging.py::test_the_metric_of_nvidias_gpus_is_that_of_others",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "radii = jnp.where(is_zero, 0, step.radii)",
        "radii = step.radii",
        ("tests/solvers/test_secular_passes.py::test_every_group_regularizer_gets_its_exact_solution",),
    ),
    Mutation(
        "xla/reductions.py",
        "for part in (x.real, x.imag)",
        "for part in (x.imag, x.real)",
        ("tests/xla/test_reductions.py::test_sums_in_pairs_are_the_sums",),
    ),
    Mutation(
        "xla/reductions.py",
        "alone = terms[2 * len(pairs) :]",
        "alone = terms[2 * len(pairs) + 1 :]",
        ("tests/xla/test_reductions.py::test_sums_in_pairs_are_the_sums",),
    ),
    Mutation(
        "xla/execution.py",
        "jax.lax.div(zero + number, zero + 1)",
        "jax.lax.div(zero + number, zero + 2)",
        ("tests/subproblem/test_small_leaves.py::test_solutions_are_those_of_leaves_solved_one_by_one",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "PASSES = {32: 2, 64: 3}",
        "PASSES = {32: 2, 64: 2}",
        ("tests/solvers/test_secular_passes.py::test_the_golden_trajectories_are_followed",),
    ),
    Mutation(
        "solvers/secular_gauss.py",
        "Moments(q * q, q * b, b * b, (b * h) * b)",
        "Moments(q * q, q * b, b * b, b * b)",
        ("tests/solvers/test_secular_passes.py::test_the_reported_residual_bounds_what_is_left_undone",),
    ),
    Mutation(
        "solvers/secular_pass.py",
        "0.5 - 0.5 * gain <",
        "0.5 - gain <",
        (
            "tests/solvers/test_secular_passes.py::"
            "test_a_concave_penalty_gets_the_lower_of_both_minima_below_and_beyond_its_knee",
        ),
    ),
    Mutation(
        "numerics/norms.py",
        "jnp.where(many > 0, of_large, of_small)",
        "jnp.where(many > 0, of_small, of_small)",
        ("tests/test_numerics.py::test_norms_are_numpys_at_any_scale",),
    ),
    Mutation(
        "subproblem/running/at_once.py",
        "together = problem.path if is_on_several_devices(model.linear) else None",
        "together = problem.path",
        ("tests/solvers/test_secular_passes.py::test_what_is_one_number_per_group_is_done_once_for_all_leaves",),
    ),
    Mutation(
        "builders/preconditioned.py",
        "is_finite if jnp.ndim(diagonal) else jnp.all(is_finite)",
        "is_finite",
        ("tests/test_belonging.py::test_prox_sgds_metric_is_one_number",),
    ),
    Mutation(
        "compaction/planning/slicing.py",
        "np.size(leaf) == 1 and np.shape(leaf) != wanted",
        "np.size(leaf) == 1",
        ("tests/compaction/test_training.py::test_expand_puts_one_kept_index_where_it_was",),
    ),
    # The package itself: numerics, many leaves, validation.
    Mutation(
        "numerics/dtypes.py",
        "return promoted(dtype, jnp.float32)",
        "return jnp.dtype(dtype)",
        ("tests/test_numerics.py::test_sums_are_at_least_float32",),
    ),
    Mutation(
        "numerics/dtypes.py",
        "for x in jax.tree.leaves(tree)))",
        "for x in jax.tree.leaves(tree)[:1]))",
        ("tests/test_numerics.py::test_sums_are_at_least_float32",),
    ),
    Mutation(
        "numerics/dtypes.py",
        "jnp.asarray(value(step) if callable(value) else value, dtype=dtype)",
        "jnp.asarray(value(step) if callable(value) else value)",
        ("tests/test_numerics.py::test_at_step_takes_numbers_and_schedules",),
    ),
    Mutation(
        "numerics/dtypes.py",
        "return jnp.asarray(optax.safe_increment(count))",
        "return count + 1",
        ("tests/test_numerics.py::test_a_count_stays_at_the_end_of_int32",),
    ),
    Mutation(
        "numerics/dtypes.py",
        "** count.astype(dtype)",
        "** (count + 1).astype(dtype)",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[adamw]",),
    ),
    Mutation(
        "numerics/limits.py",
        "jnp.where(jnp.isfinite(wide) & (jnp.abs(wide) > limit), ",
        "jnp.where(jnp.abs(wide) > limit, ",
        ("tests/test_huge_gradients.py::test_limited_cuts_what_is_finite_and_huge_and_nothing_else",),
    ),
    Mutation(
        "numerics/limits.py",
        "return jnp.where(is_finite, jnp.clip(total, -limit, limit), total)",
        "return total",
        ("tests/test_huge_gradients.py::test_saturated_is_finite_where_its_terms_are",),
    ),
    Mutation(
        "numerics/limits.py",
        "float(info.max) * (1 - 2 * float(info.eps))",
        "float(info.max)",
        ("tests/test_huge_gradients.py::test_averaging_reaches_no_infinity_from_anywhere_in_float16",),
    ),
    Mutation(
        "numerics/long_sums.py",
        "jnp.where(jnp.abs(missing) > threshold",
        "jnp.where(jnp.abs(missing) > 2 + threshold",
        ("tests/test_long_runs.py::test_add_evenly_adds_terms_below_rounding",),
    ),
    Mutation(
        "numerics/counts.py",
        "if mask.size <= MOST:",
        "if mask.size <= 2 * MOST:",
        ("tests/test_long_runs.py::test_metrics_of_trees_beyond_the_counts_are_those_within",),
    ),
    Mutation(
        "builders/preconditioned.py",
        "jnp.where(jnp.isinf(diagonal) & is_finite, root, diagonal)",
        "diagonal",
        ("tests/test_huge_gradients.py::test_parameters_stay_finite_when_a_sum_of_squares_overflows",),
    ),
    Mutation(
        "numerics/norms.py",
        "return scale * jnp.sqrt(jnp.sum(jnp.square(x * inverse), axis=axes, keepdims=True))",
        "return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))",
        ("tests/test_numerics.py::test_norms_are_numpys_at_any_scale",),
    ),
    Mutation(
        "numerics/norms.py",
        "largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)",
        "largest = jnp.max(x, axis=axes, keepdims=True, initial=0)",
        ("tests/test_numerics.py::test_norms_are_numpys_at_any_scale",),
    ),
    Mutation(
        "xla/reductions.py",
        "for n in range(1, 17)",
        "for n in range(1, 16)",
        ("tests/xla/test_reductions.py::test_fused_sums_are_the_sums",),
    ),
    Mutation(
        "xla/reductions.py",
        "(*shape[:axis], *rest, *shape[axis + 1 :]), axis if is_last else axis + 1",
        "(*shape[:axis], *rest, *shape[axis + 1 :]), axis",
        ("tests/xla/test_reductions.py::test_fused_sums_are_the_sums",),
    ),
    Mutation(
        "xla/hints.py",
        "jnp.where(opaque_zero(after) != 0, like, 1)",
        "jnp.where(opaque_zero(after) == 0, like, 1)",
        ("ramda_jax/subproblem/proximal_point.py",),
    ),
    Mutation(
        "xla/hints.py",
        "return jnp.minimum(jnp.maximum(bits, 0), 0)",
        "return jnp.maximum(bits, 0)",
        ("tests/xla/test_many_leaves.py::test_no_scalar_moves_a_leaf_to_another_place",),
    ),
    Mutation(
        "numerics/cbrt.py",
        "(jnp.int64, 0x553EF0FF289DD796, 2)",
        "(jnp.int64, 0x553EF0FF289DD796, 1)",
        ("tests/test_numerics.py::test_cbrt_is_within_four_units_in_the_last_place_over_all_floats[float64]",),
    ),
    Mutation(
        "numerics/cbrt.py",
        "result * 2.0**-k",
        "result * 2.0**k",
        ("tests/test_numerics.py::test_cbrt_at_the_ends_of_the_range",),
    ),
    Mutation(
        "xla/execution.py",
        "return fused_sums(terms, axes)",
        "return plain_sums(terms, axes)",
        ("tests/xla/test_execution.py::test_what_is_in_the_cache_is_summed_in_one_pass",),
    ),
    Mutation(
        "subproblem/strengths/law.py",
        "(step == 0) | (model_weight < state.model_weight)",
        "(step == 0) | (model_weight > state.model_weight)",
        ("tests/subproblem/test_target.py::test_held_at_a_restart_the_run_is_that_of_the_number_bit_by_bit",),
    ),
    Mutation(
        "subproblem/strengths/law.py",
        "jnp.where(total > 0, total, 1)",
        "total",
        (
            "tests/subproblem/test_target.py::test_a_target_with_nothing_to_zero_moves_what_is_left_and_its_share_is_a_number",
        ),
    ),
    Mutation(
        "xla/many_leaves.py",
        "together.setdefault(jnp.dtype(leaf.dtype), {})",
        "together.setdefault(None, {})",
        ("tests/xla/test_many_leaves.py::test_entries_of_many_leaves_are_mapped_as_one_by_one",),
    ),
    Mutation(
        "xla/many_leaves.py",
        "start += len(leaves) * size",
        "start += size",
        ("tests/xla/test_many_leaves.py::test_entries_of_many_leaves_are_mapped_as_one_by_one",),
    ),
    Mutation(
        "xla/many_leaves.py",
        "start + i * size, size)",
        "start + i, size)",
        ("tests/xla/test_many_leaves.py::test_entries_of_many_leaves_are_mapped_as_one_by_one",),
    ),
    Mutation(
        "xla/many_leaves.py",
        "jax.lax.div(indices[-1] + one, one)",
        "jax.lax.div(indices[0] + one, one)",
        ("tests/xla/test_many_leaves.py::test_no_scalar_moves_a_leaf_to_another_place",),
    ),
    Mutation(
        "validation.py",
        "lambda x: 0 <= x < float(",
        "lambda x: 0 < x < float(",
        ("tests/regularizers/test_each.py::test_l1_keeps_a_zero_a_zero_and_thresholds_at_the_border",),
    ),
    Mutation(
        "validation.py",
        "lambda x: 0 < x < float(",
        "lambda x: 0 <= x < float(",
        ("tests/regularizers/test_each.py::test_bad_settings_are_refused_by_name_with_a_remedy",),
    ),
    Mutation(
        "validation.py",
        "lambda x: 0 < x <= 1",
        "lambda x: 0 < x < 1",
        ("ramda_jax/subproblem/proximal_point.py",),
    ),
    Mutation(
        "validation.py",
        '_number("l1_ratio", value, lambda x: 0 <= x <= 1',
        '_number("l1_ratio", value, lambda x: 0 < x <= 1',
        ("tests/regularizers/test_each.py::test_sparse_group_lasso_is_one_prox_after_the_other",),
    ),
    Mutation(
        "validation.py",
        "lambda x: 0 <= x < 1,",
        "lambda x: 0 <= x <= 1,",
        ("tests/methods/test_equivalences.py::test_method_refuses_bad_numbers_by_name",),
    ),
    Mutation(
        "validation.py",
        "if value < minimum:",
        "if value <= minimum:",
        ("tests/solvers/test_secular_gauss.py::test_a_step_limit_is_reported",),
    ),
    Mutation(
        "validation.py",
        "if any(a >= b for a, b",
        "if any(a > b for a, b",
        ("tests/averaging/test_schedules.py::test_stage_growth_refuses_bad_settings_by_name",),
    ),
    Mutation(
        "validation.py",
        "zip((0, *steps), steps, strict=False)",
        "zip(steps, steps[1:], strict=False)",
        ("tests/averaging/test_schedules.py::test_stage_growth_refuses_bad_settings_by_name",),
    ),
    Mutation(
        "validation.py",
        "not jnp.issubdtype(known, jnp.floating)",
        "not jnp.issubdtype(known, jnp.inexact)",
        ("tests/averaging/test_iterate_averaging.py::test_iterate_dtype_that_is_none_is_refused_by_name",),
    ),
    Mutation(
        "validation.py",
        "not jnp.issubdtype(dtype, jnp.floating)",
        "not jnp.issubdtype(dtype, jnp.number)",
        ("tests/builders/test_dual_averaging.py::test_parameters_that_are_no_real_numbers_are_refused_by_path",),
    ),
    Mutation(
        "tables.py",
        "width += 2 + widths[place + 1]",
        "width += widths[place + 1]",
        ("tests/test_tables.py",),
    ),
    Mutation(
        "files.py",
        "if status.st_size > largest:",
        "if status.st_size >= largest:",
        ("ramda_jax/compaction/storage/load.py",),
    ),
    # averaging
    Mutation(
        "averaging/iterate_averaging.py",
        "(reachable(point.astype(dtype), iterate.dtype) - iterate.astype(dtype))",
        "(iterate.astype(dtype) - reachable(point.astype(dtype), iterate.dtype))",
        ("ramda_jax/averaging/iterate_averaging.py",),
    ),
    Mutation(
        "averaging/iterate_averaging.py",
        "dtype = sums_dtype(iterate.dtype)",
        "dtype = iterate.dtype",
        ("tests/averaging/test_iterate_averaging.py::test_an_update_of_half_precision_is_rounded_once",),
    ),
    Mutation(
        "averaging/iterate_averaging.py",
        "at_step(1.0 if PROBE_POINT in extra_args else averaging, state.averaging_step, sums_dtype(p.dtype))",
        "at_step(averaging, state.averaging_step, sums_dtype(p.dtype))",
        ("tests/inspection/test_check_last.py::test_what_keeps_the_structure_passes[an end of a user's]",),
    ),
    Mutation(
        "averaging/iterate_averaging.py",
        "p.astype(promoted(p.dtype, kept_dtype or p.dtype))",
        "p.astype(kept_dtype or p.dtype)",
        ("tests/averaging/test_iterate_averaging.py::test_an_iterate_is_never_kept_in_less_than_the_parameters_dtype",),
    ),
    Mutation(
        "averaging/iterate_averaging.py",
        "jax.tree.map(widened, copy(params))",
        "jax.tree.map(widened, params)",
        (
            "tests/averaging/test_iterate_averaging.py::"
            "test_kept_iterate_works_with_map_params_injection_donation_and_eval_params[rmda]",
        ),
    ),
    Mutation(
        "averaging/iterate_averaging.py",
        "step = next_count(state.averaging_step)",
        "step = state.averaging_step",
        (
            "tests/averaging/test_iterate_averaging.py::"
            "test_zeros_are_exact_with_an_iterate_dtype_once_c_is_one[float32-rmda]",
        ),
    ),
    Mutation(
        "averaging/schedules.py",
        "inverse * inverse - 1e-6",
        "inverse * inverse",
        (
            "tests/averaging/test_schedules.py::"
            "test_sqrt_growth_is_exactly_one_from_the_ceiling_of_one_over_c_squared_on",
        ),
    ),
    Mutation(
        "averaging/schedules.py",
        "next_count(jnp.maximum(jnp.asarray(step) - start, 0))",
        "jnp.maximum(jnp.asarray(step) - start, 1)",
        ("ramda_jax/averaging/schedules.py",),
    ),
    Mutation(
        "averaging/schedules.py",
        "jnp.where(i >= full, 1.0,",
        "jnp.where(i > full, 1.0,",
        (
            "tests/averaging/test_schedules.py::"
            "test_sqrt_growth_is_exactly_one_from_the_ceiling_of_one_over_c_squared_on",
        ),
    ),
    Mutation(
        "averaging/schedules.py",
        "jnp.asarray(step) >= jnp.asarray(ends, int)",
        "jnp.asarray(step) > jnp.asarray(ends, int)",
        ("ramda_jax/averaging/schedules.py",),
    ),
    Mutation(
        "averaging/schedules.py",
        "averaging * growth**stage * (1 + 1e-9)",
        "averaging * growth**stage",
        ("tests/averaging/test_schedules.py::test_stage_growth_multiplies_after_every_end",),
    ),
    Mutation(
        "averaging/stages.py",
        "    last = ends[-1] if ends else 0",
        "    last = ends[0] if ends else 0",
        (
            "tests/averaging/test_schedules.py::"
            "test_stages_multiplies_learning_rate_and_eps_after_every_end_and_grows_in_the_last_stage",
        ),
    ),
    # compaction
    Mutation(
        "compaction/adapters/equinox.py",
        "call(eqx.nn.inference_mode(combine(arrays, static), not train), *args)",
        "call(combine(arrays, static), *args)",
        ("tests/compaction/test_equality_functions.py::test_equinox_module_becomes_a_small_equinox_module",),
    ),
    Mutation(
        "compaction/folding/biases.py",
        '-1 if name == "sub" else 1',
        "1",
        ("tests/compaction/test_folding.py::test_a_sum_may_be_scaled_and_added_to_before_its_bias",),
    ),
    Mutation(
        "compaction/tracing/known/constants.py",
        "np.logical_and.reduce(masks)",
        "np.logical_or.reduce(masks)",
        ("tests/compaction/test_folding.py::test_what_is_said_to_be_constant_is_constant",),
    ),
    Mutation(
        "compaction/adapters/choose.py",
        "dataclasses.replace(adapter, how=GIVEN)",
        "adapter",
        ("tests/compaction/test_called.py::test_every_door_says_how_to_say_how_a_model_is_called",),
    ),
    Mutation(
        "compaction/tracing/known/loops.py",
        "            carry = kept\n",
        "            break\n",
        ("tests/compaction/test_zeros.py::test_what_is_said_to_be_zero_is_zero",),
    ),
    Mutation(
        "compaction/planning/liveness.py",
        "if not alive and width.name in empty:",
        "if False:",
        ("tests/compaction/test_empty.py::test_plan_compaction_empties_the_widths_that_are_named",),
    ),
    Mutation(
        "compaction/grouping/couple.py",
        "[int((member.index < 0).sum()) :]",
        "",
        ("tests/compaction/test_coupling.py::test_pack_has_its_inverse_and_its_like_in_the_small_model",),
    ),
    Mutation(
        "compaction/grouping/coupling.py",
        "                start += columns\n",
        "",
        ("tests/compaction/test_coupling.py::test_without_strength_it_is_the_optimizer_itself",),
    ),
    Mutation(
        "compaction/grouping/coupling.py",
        "jnp.concatenate(blocks, axis=1)",
        "jnp.concatenate(blocks, axis=0)",
        ("tests/compaction/test_coupling.py::test_a_group_is_index_i_of_all_readers_and_weighs_the_root_of_its_size",),
    ),
    Mutation(
        "compaction/grouping/couple.py",
        "if width.name in parts and not removable[width.nodes].all()",
        "if False",
        ("tests/compaction/test_couple_model.py::test_a_group_that_something_uncoupled_reads_as_well_is_none",),
    ),
    Mutation(
        "compaction/tracing/units/sums.py",
        "result += [(path, axis) for axis in kept or unknown]",
        "result += [(path, axis) for axis in longer]",
        ("tests/compaction/test_coupling.py::test_a_square_kernel_is_coupled_along_what_it_reads",),
    ),
    Mutation(
        "compaction/tracing/units/group_axes.py",
        "if path not in units.tables",
        "if True",
        ("tests/compaction/test_groups.py::test_groups_lie_along_the_axes_that_are_read",),
    ),
    Mutation(
        "compaction/tracing/known/zeros.py",
        '_ALL, _ANY = ("add", "add_any", "sub", "max", "min"), ("mul", "and")',
        '_ALL, _ANY = (), ("add", "add_any", "sub", "max", "min", "mul", "and")',
        ("tests/compaction/test_zeros.py::test_what_is_said_to_be_zero_is_zero",),
    ),
    Mutation(
        "compaction/grouping/makers.py",
        "return not check_structure(apply, small, args, dims, plan)",
        "return True",
        ("tests/compaction/test_zeros.py::test_queries_with_keys_and_values_have_groups_of_their_own",),
    ),
    Mutation(
        "compaction/tracing/units/savings.py",
        'times.append(times[-1] * equation.params.get("length", 1))',
        "times.append(times[-1])",
        ("tests/compaction/test_costs.py::test_operations_are_those_that_xla_counts",),
    ),
    Mutation(
        "compaction/grouping/costs.py",
        "saved / np.maximum(number, 1), 0)",
        "saved, 0)",
        ("tests/compaction/test_costs.py::test_costs_are_shaped_as_the_norms_and_parts_of_a_unit_add_up",),
    ),
    Mutation(
        "inspection/states.py",
        "structured = node.packing.unpack(with_values(packed), structured)",
        "pass",
        ("tests/compaction/test_couple_model.py::test_eval_params_takes_and_returns_the_models_own_parameters",),
    ),
    Mutation(
        "compaction/tracing/trace.py",
        'walk.indices.freeze(label, "the model\'s output")',
        "pass",
        ("ramda_jax/compaction/adapters/trace_dims.py",),
    ),
    Mutation(
        "compaction/tracing/trace.py",
        'walk.indices.freeze(label, "a leaf that the function does not use")',
        "pass",
        ("tests/compaction/test_refusals.py::test_a_leaf_that_the_function_does_not_use_stays_whole",),
    ),
    Mutation(
        "compaction/adapters/factors/matrix.py",
        "root = np.sqrt(s[:rank])",
        "root = s[:rank]",
        ("tests/compaction/test_low_rank.py::test_factor_is_the_best_of_its_rank",),
    ),
    Mutation(
        "compaction/adapters/factors/matrix.py",
        "return Factored(self.right.T, self.left.T)",
        "return Factored(self.left.T, self.right.T)",
        ("ramda_jax/compaction/adapters/factors/matrix.py",),
    ),
    Mutation(
        "compaction/adapters/linen.py",
        'sizes = {"features": kernel[-1]}',
        'sizes = {"features": kernel[0]}',
        ("tests/compaction/test_remembered.py::test_a_linen_module_reads_its_features_from_its_kernel",),
    ),
    Mutation(
        "compaction/adapters/factors/linen.py",
        '{} if bias is None else {"bias": bias}',
        '{} if bias is None else {"bias": 0 * bias}',
        ("tests/compaction/test_low_rank.py::test_linen_dense_reads_two_factors",),
    ),
    Mutation(
        "compaction/adapters/sizes/layers.py",
        "return groups if small % each else small // each",
        "return small // each",
        ("ramda_jax/compaction/adapters/sizes/layers.py",),
    ),
    Mutation(
        "compaction/symmetry/contractions.py",
        "agreed([rows, with_sources(columns, of_group)])",
        "with_sources(columns, of_group)",
        (
            "tests/compaction/test_symmetry.py::"
            "test_experts_keep_the_order_of_their_units_only_where_rows_stay_in_their_groups",
        ),
    ),
    Mutation(
        "compaction/symmetry/follow.py",
        "not in _KEEP_ROWS and is_by_group(map(self.state, visit.inputs))",
        "not in _KEEP_ROWS and False",
        ("tests/compaction/test_symmetry.py::test_rows_that_change_groups_between_two_ragged_products_keep_the_order",),
    ),
    Mutation(
        "compaction/symmetry/moves.py",
        "if result is not ANY and found != result:",
        "if False:",
        ("tests/compaction/test_symmetry.py::test_the_order_of_units_is_free_where_it_is_said_to_be",),
    ),
    Mutation(
        "compaction/symmetry/follow.py",
        "if any(found is not ANY for found in self.state(value).values()):",
        "if False:",
        ("tests/compaction/test_orders.py::test_what_is_returned_keeps_its_order",),
    ),
    Mutation(
        "compaction/storage/rebuild.py",
        "if shape != leaf_plan.small_shape:",
        "if False:",
        ("tests/compaction/test_rebuild.py::test_a_whole_checkpoint_is_refused_and_made_small_it_is_taken",),
    ),
    Mutation(
        "compaction/adapters/factors/matrix.py",
        "np.sum(~(singular <= limits), axis=1).max()",
        "np.sum(~(singular <= limits), axis=1).min()",
        ("tests/compaction/test_low_rank.py::test_stacked_layers_are_factored_one_by_one",),
    ),
    Mutation(
        "compaction/adapters/factors/einsum.py",
        "if kernel == summed + kept:",
        "if kernel != summed + kept:",
        ("tests/compaction/test_low_rank.py::test_every_layer_of_nnx_becomes_two",),
    ),
    Mutation(
        "compaction/adapters/factors/nnx.py",
        "small = nnx.clone(model)",
        "small = model",
        ("tests/compaction/test_low_rank.py::test_nnx_linears_become_two",),
    ),
    Mutation(
        "compaction/adapters/factors/nnx.py",
        "second.bias = nnx.Param(jnp.copy(layer.bias.get_value()))",
        "pass",
        ("tests/compaction/test_low_rank.py::test_nnx_linears_become_two",),
    ),
    Mutation(
        "compaction/tracing/labels/nodes.py",
        "(kept[factors] | (factors < 0)).all(axis=1)",
        "(kept[factors] & (factors >= 0)).any(axis=1)",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/proof/equation_params.py",
        "(rule.size_params if rule else set())",
        "set()",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/walk.py",
        "RULES if rules is None else {**RULES, **rules}",
        "RULES",
        ("tests/compaction/test_rules.py::test_a_rule_of_the_users_is_followed_in_both_traces_and_in_the_proof",),
    ),
    Mutation(
        "compaction/tracing/labels/indices.py",
        "            self._freeze(np.array(self._factors[root]), number)\n",
        "            pass\n",
        ("ramda_jax/compaction/tracing/labels/indices.py",),
    ),
    Mutation(
        "compaction/planning/unread_inputs.py",
        "mixed[dims.nodes.roots[nodes]] = True",
        "pass",
        ("tests/compaction/test_widths.py",),
    ),
    Mutation(
        "compaction/tracing/widths.py",
        "group[nodes] = last + 1 + part",
        "group[nodes] = last + 1",
        ("tests/compaction/test_widths.py",),
    ),
    Mutation(
        "compaction/tracing/labels/union_find.py",
        "fresh = (self._reason_of[nodes] != 0) & (self._reason_of[roots] == 0)",
        "fresh = (self._reason_of[nodes] != 0) & (self._reason_of[roots] != 0)",
        ("ramda_jax/compaction/adapters/trace_dims.py",),
    ),
    Mutation(
        "compaction/planning/liveness.py",
        "if not alive.all():\n                    mask = np.compress(alive, mask, axis)",
        "if False:\n                    mask = np.compress(alive, mask, axis)",
        ("tests/compaction/test_equality_nnx.py::test_compact_model_keeps_one_index_of_a_dead_layer",),
    ),
    Mutation(
        "compaction/planning/liveness.py",
        "max(1, -(-alive // round_to)) * round_to",
        "max(1, alive // round_to) * round_to",
        ("tests/compaction/test_equality_functions.py::test_round_to_keeps_a_multiple_or_all",),
    ),
    Mutation(
        "compaction/planning/unread_inputs.py",
        "np.flatnonzero(~touched[roots[label]] & ",
        "np.flatnonzero(touched[roots[label]] & ",
        ("tests/compaction/test_equality_nnx.py::test_plan_reports_the_inputs_that_nothing_reads",),
    ),
    Mutation(
        "compaction/adapters/factors/matrix.py",
        "return rank if rank * (rows + columns) < rows * columns else None",
        "return rank if rank * (rows + columns) <= rows * columns else None",
        ("tests/compaction/test_low_rank.py::test_low_rank_plan_takes_matrices_that_are_smaller_as_two_factors",),
    ),
    Mutation(
        "compaction/model.py",
        "whole = expand(plan, small)",
        "pass",
        ("tests/compaction/test_refusals.py::test_a_threshold_is_an_option_of_its_own",),
    ),
    # A NaN is above no threshold.
    Mutation(
        "compaction/tracing/recipes.py",
        "np.any(~(np.abs(value) <= threshold),",
        "np.any(np.abs(value) > threshold,",
        ("tests/compaction/test_refusals.py::test_one_tiny_nonzero_keeps_its_channel",),
    ),
    Mutation(
        "compaction/tracing/recipes.py",
        "np.any(~(np.abs(value) <= threshold),",
        "np.all(~(np.abs(value) <= threshold),",
        ("tests/compaction/test_equality_functions.py::test_what_one_step_of_a_scan_reads_stays",),
    ),
    Mutation(
        "compaction/proof/numbers.py",
        "float(np.abs(a - b).max() / scale) if scale",
        "float(np.abs(a - b).max()) if scale",
        ("tests/compaction/test_refusals.py::test_differences_are_relative_to_the_largest_output_and_nan_is_one",),
    ),
    Mutation(
        "compaction/tracing/rules/shapes.py",
        "np.flatnonzero(wanted & mask)",
        "np.flatnonzero(wanted)",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/planning/plan.py",
        '_IN_JSON = {"widths": "ids"}',
        "_IN_JSON = {}",
        ("tests/compaction/test_storage.py::test_a_plan_of_format_1_is_read_and_written_as_it_was",),
    ),
    Mutation(
        "compaction/planning/plan.py",
        "return len(self.padding) == len(self.kept)",
        "return len(self.padding) > 0",
        ("tests/compaction/test_report.py::test_report_does_not_count_what_is_kept_for_a_round_size",),
    ),
    Mutation(
        "compaction/planning/plan.py",
        "tuple(n if kept is None else len(kept) for n, kept",
        "tuple(n if kept is None else n - len(kept) for n, kept",
        ("ramda_jax/compaction/planning/make_plan.py",),
    ),
    Mutation(
        "compaction/planning/make_plan.py",
        "np.flatnonzero(staying & ~alive)",
        "np.flatnonzero(staying & alive)",
        ("tests/compaction/test_equality_functions.py::test_round_to_keeps_a_multiple_or_all",),
    ),
    Mutation(
        "compaction/proof/verify.py",
        "liveness.alive[width.nodes] & ~kept[width.nodes]",
        "~liveness.alive[width.nodes] & kept[width.nodes]",
        ("tests/compaction/test_refusals.py::test_verify_refuses_a_live_channel_deleted",),
    ),
    Mutation(
        "compaction/proof/numbers.py",
        " + [[args]]",
        "",
        ("ramda_jax/compaction/proof/verify.py",),
    ),
    Mutation(
        "compaction/proof/numbers.py",
        "max(own, inside) if own or",
        "own if own or",
        (
            "tests/compaction/test_numbers.py::"
            "test_outputs_need_not_agree_better_than_the_precision_inside_though_no_parameter_shows_it",
        ),
    ),
    Mutation(
        "compaction/after/report.py",
        "return 1 - self.after.params / self.before.params",
        "return self.after.params / self.before.params",
        ("tests/compaction/test_report.py::test_report_counts_what_can_be_counted_by_hand",),
    ),
    Mutation(
        "compaction/after/report.py",
        "len(width.kept) - len(width.padding), width.size",
        "len(width.kept), width.size",
        ("tests/compaction/test_report.py::test_report_does_not_count_what_is_kept_for_a_round_size",),
    ),
    Mutation(
        "compaction/search/search.py",
        "if attempt.mismatches and not attempt.plan.changes_nothing:",
        "if True:",
        ("tests/compaction/test_refusals.py::test_what_was_suspected_first_and_is_innocent_goes_all_the_same",),
    ),
    Mutation(
        "compaction/search/search.py",
        "if not attempt.mismatches or strict:\n            return attempt\n",
        "if not attempt.mismatches:\n            return attempt\n",
        ("tests/compaction/test_refusals.py::test_compact_model_strict_refuses_at_the_first_difference",),
    ),
    Mutation(
        "compaction/planning/slicing.py",
        "range(n) if kept is None or (n == 1 and size != 1) else kept",
        "range(n) if kept is None else kept",
        ("ramda_jax/compaction/grouping/small_coupling.py",),
    ),
    Mutation(
        "compaction/planning/slicing.py",
        "np.array(reordered(leaf_plan, _entries(background)))",
        "np.asarray(reordered(leaf_plan, _entries(background)))",
        ("tests/compaction/test_training.py::test_training_continued_small_equals_training_continued_masked",),
    ),
    Mutation(
        "compaction/planning/slicing.py",
        "result.append(jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf)",
        "result.append(leaf)",
        ("tests/compaction/test_training.py::test_compact_state_slices_what_map_params_finds",),
    ),
    Mutation(
        "compaction/after/state.py",
        "if np.shape(leaf) != wanted.shape:",
        "if np.ndim(leaf) != len(wanted.shape):",
        ("tests/compaction/test_training.py::test_compact_state_refuses_a_state_that_is_not_kept_entry_by_entry",),
    ),
    Mutation(
        "compaction/grouping/small_coupling.py",
        "return np.searchsorted(kept, rows[np.isin(rows, kept)])",
        "return np.flatnonzero(np.isin(rows, kept))",
        ("tests/compaction/test_coupling.py::test_pack_has_its_inverse_and_its_like_in_the_small_model",),
    ),
    Mutation(
        "compaction/storage/save.py",
        "plan.leaves[path].small_shape if path",
        "plan.leaves[path].shape if path",
        ("ramda_jax/compaction/storage/load.py",),
    ),
    Mutation(
        "compaction/planning/slicing.py",
        "start = max(candidates, key=",
        "start = min(candidates, key=",
        (
            "tests/structure/test_unique_names.py::"
            "test_a_states_leaf_belongs_where_its_container_says_and_not_to_a_leaf_that_looks_like_its_path",
        ),
    ),
    Mutation(
        "compaction/proof/structure.py",
        "ours.dtype == others.dtype and ours.tobytes() == others.tobytes()",
        "ours.dtype == others.dtype",
        (
            "tests/compaction/test_refusals.py::test_compact_model_refuses_with_the_reason_when_the_program_depends_on_the_width",
        ),
    ),
    Mutation(
        "compaction/after/training.py",
        "jnp.where(a, u, -p.astype(u.dtype))",
        "jnp.where(a, u, 0)",
        ("tests/compaction/test_training.py::test_freeze_structure_holds_groups_when_given_the_regularizer",),
    ),
    Mutation(
        "compaction/after/training.py",
        "jax.tree.map(jnp.copy, masks_like(params, alive))",
        "masks_like(params, alive)",
        (
            "tests/compaction/test_training.py::test_freeze_structure_works_in_bfloat16_under_jit_with_donation_and_wants_params",
        ),
    ),
    Mutation(
        "compaction/after/training.py",
        "if isinstance(own, GroupRegularizer) and jnp.ndim(own.weights(leaf.shape)) > 0:",
        "if False:",
        ("tests/compaction/test_training.py::test_keep_group_weights_refuses_what_counts_or_weighs_the_whole",),
    ),
    Mutation(
        "compaction/tracing/walk.py",
        "        for before, after in zip(inside, results, strict=False):\n            self.unify(before, after)\n",
        "",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/walk.py",
        "for first, result in zip(branches[0], results, strict=True):\n                self.unify(first, result)",
        "pass",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/walk.py",
        "value.recipe if stays else None)",
        "value.recipe)",
        ("tests/compaction/test_equality_nnx.py::test_compact_model_twice_equals_once",),
    ),
    # compaction/tracing/rules
    Mutation(
        "compaction/tracing/rules/contractions.py",
        "*zip(lhs_contracted, rhs_contracted, strict=True), *zip(lhs_batch, rhs_batch, strict=True)",
        "*zip(lhs_contracted, rhs_contracted, strict=True)",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/contractions.py",
        "    indices.unify(lhs_groups, rhs_groups)\n",
        "",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/contractions.py",
        "labels[out_feature] = rhs.labels[out]",
        "labels[out_feature] = rhs.labels[into]",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/elementwise.py",
        "for other in along[1:]:",
        "for other in along[2:]:",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/indexing.py",
        "        if not whole:\n            walk.indices.freeze(label, _INDEXED)\n",
        "",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/indexing.py",
        "            continue\n        walk.indices.freeze(label, _INDEXED)\n        labels.append",
        "            continue\n        labels.append",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/indexing.py",
        "wanted = int(masks(visit.inputs[0].labels[axis])[:first].sum())",
        "wanted = first",
        (
            "tests/compaction/test_refusals.py::test_what_is_written_at_a_fixed_place_must_be_written_to_the_same_indices",
        ),
    ),
    Mutation(
        "compaction/tracing/rules/shapes.py",
        "int(mask[:low].sum()) if low > 0 else low",
        "theirs[0]",
        ("tests/compaction/test_refusals.py::test_channels_of_padding_go_only_where_the_code_follows",),
    ),
    Mutation(
        "compaction/tracing/rules/reductions.py",
        "    for axis in axes:\n        _freeze(walk, visit, value, axis)\n",
        "",
        ("tests/compaction/test_refusals.py::test_trace_dims_freezes_an_axis_that_is_looked_along",),
    ),
    Mutation(
        "compaction/tracing/rules/reductions.py",
        "        _freeze(walk, visit, visit.inputs[0], visit.equation.params[parameter])\n",
        "",
        ("tests/compaction/test_refusals.py::test_trace_dims_freezes_an_axis_that_is_looked_along",),
    ),
    Mutation(
        "compaction/tracing/rules/shapes.py",
        "label[::-1] if axis in reversed_axes",
        "label if axis in reversed_axes",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/shapes.py",
        "np.concatenate([ends[0], spread, ends[1]])",
        "np.concatenate([ends[1], spread, ends[0]])",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/shapes.py",
        "return [[label[a:b:step] for",
        "return [[label[: b - a : step] for",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    Mutation(
        "compaction/tracing/rules/shapes.py",
        "np.concatenate([value.labels[dimension] for value in visit.inputs])",
        "np.concatenate([value.labels[dimension] for value in visit.inputs[::-1]])",
        ("tests/compaction/test_equality_functions.py::test_compact_function_computes_the_same",),
    ),
    # phases
    Mutation(
        "phases/hold_zeros.py",
        "_choose(step <= switch, find, tune)",
        "_choose(step < switch, find, tune)",
        ("tests/phases/test_hold_zeros.py::test_the_switch_goes_to_the_structured_point_of_the_method",),
    ),
    Mutation(
        "phases/hold_zeros.py",
        "_choose(step == switch, arrive, lambda: (found, state.alive))",
        "(found, masks_like(params, alive_masks(params, regularizer)))",
        ("tests/phases/test_hold_zeros.py::test_the_switch_goes_to_the_structured_point_of_the_method",),
    ),
    Mutation(
        "phases/hold_zeros.py",
        "lambda old, new: new if is_model(old) else old",
        "lambda old, new: old",
        (
            "tests/phases/test_hold_zeros.py::"
            "test_eval_params_is_the_parameters_after_the_switch_and_lambda_stays_readable",
        ),
    ),
    Mutation(
        "subproblem/strengths/law.py",
        "    return TargetState(current, start, weight, model_weight, share, mean_share,",
        "    return TargetState(current, start, current, current, current, current,",
        ("tests/subproblem/test_target.py::test_no_two_arrays_of_a_fresh_state_are_one_so_that_it_may_be_donated",),
    ),
    Mutation(
        "subproblem/strengths/law.py",
        "jnp.where(is_exact & jnp.isfinite(cap), cap * (1 + ROUNDING * jnp.finfo(dtype).eps), weight)",
        "weight",
        (
            "tests/subproblem/test_target.py::"
            "test_the_share_is_met_in_the_step_that_is_to_be_exact_whatever_the_gradient_does[ramda]",
        ),
    ),
    Mutation(
        "phases/ramda_then_hold.py",
        "exact_at=switch - 1 if",
        "exact_at=switch if",
        (
            "tests/phases/test_hold_zeros.py::"
            "test_the_share_is_met_at_the_switch_also_if_large_groups_revive_just_before_it[0.7]",
        ),
    ),
    Mutation(
        "subproblem/strengths/law.py",
        "_replace(share=share, mean_share=mean_share,",
        "_replace(share=mean_share, mean_share=mean_share,",
        ("tests/subproblem/test_target.py::test_a_share_that_rises_is_followed_to_the_step_that_holds",),
    ),
    # inspection
    Mutation(
        "inspection/check_last.py",
        "np.any(np.asarray(leaf) != 0)",
        "np.all(np.asarray(leaf) != 0)",
        ("tests/inspection/test_check_last.py::test_what_changes_updates_after_ours_is_found[clip]",),
    ),
    Mutation(
        "inspection/check_last.py",
        "if path in ours and np.any(",
        "if np.any(",
        ("tests/inspection/test_check_last.py::test_what_keeps_the_structure_passes[partition]",),
    ),
    Mutation(
        "inspection/check_last.py",
        "rng.uniform(-3, 3, leaf.shape)",
        "rng.uniform(-3, 0, leaf.shape)",
        ("tests/inspection/test_check_last.py::test_what_changes_updates_after_ours_is_found[clip]",),
    ),
    Mutation(
        "inspection/check_last.py",
        "            num_steps -= 1\n            if num_steps == 0:\n                return\n",
        "            return\n",
        ("tests/inspection/test_check_last.py::test_what_begins_later_is_seen_in_later_steps_only",),
    ),
    Mutation(
        "inspection/describe.py",
        "number = math.prod(given.radii_shape(shape))",
        "number = given.sizes(shape)",
        ("ramda_jax/inspection/describe.py",),
    ),
    Mutation(
        "inspection/describe.py",
        "choose_solver(given, metric_kind)",
        'choose_solver(given, "diagonal")',
        ("tests/inspection/test_describe.py::test_describe_names_the_solver_of_the_method",),
    ),
    Mutation(
        "inspection/describe.py",
        "        entries += size\n",
        "",
        ("ramda_jax/inspection/describe.py",),
    ),
    Mutation(
        "subproblem/find_states.py",
        "(-shared_path(path, model_path), i, j)",
        "(shared_path(path, model_path), i, j)",
        ("tests/inspection/test_eval_params.py::test_eval_params_keeps_methods_without_radii_apart",),
    ),
    Mutation(
        "inspection/states.py",
        "jnp.where(model_state.model_step == 0, start, value.astype(start.dtype))",
        "value.astype(start.dtype)",
        ("tests/inspection/test_eval_params.py::test_eval_params_before_the_first_step_is_params",),
    ),
    Mutation(
        "inspection/states.py",
        "num_steps=jnp.max(jnp.stack(",
        "num_steps=jnp.min(jnp.stack(",
        ("tests/inspection/test_eval_params.py::test_solver_info_sums_up_all_states_and_leaves",),
    ),
    Mutation(
        "inspection/states.py",
        "converged=jnp.all(jnp.stack(",
        "converged=jnp.any(jnp.stack(",
        ("tests/inspection/test_eval_params.py::test_solver_info_sums_up_all_states_and_leaves",),
    ),
    # methods
    Mutation(
        "subproblem/rules/solvers.py",
        "check_solver(self.alone, regularizer, metric_kind)",
        "pass",
        ("tests/solvers/test_select.py::test_a_solver_is_refused_where_it_is_given",),
    ),
    Mutation(
        "methods/prox_adamw.py",
        "return jnp.sqrt(nu / weight_of_average(b2, state.count, nu.dtype)) + eps",
        "return jnp.sqrt(nu / weight_of_average(b2, state.count, nu.dtype) + eps)",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[adamw_decay]",),
    ),
    Mutation(
        "methods/prox_adamw.py",
        "jnp.sqrt(nu) + eps, state.nu_max)",
        "jnp.sqrt(nu) + eps, state.nu)",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[amsgrad]",),
    ),
    Mutation(
        "methods/prox_adamw.py",
        "1 / weight_of_average(b1,",
        "1 / weight_of_average(b2,",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[adamw]",),
    ),
    Mutation(
        "methods/prox_gen.py",
        '"scalar" if metric is None else "diagonal"',
        '"diagonal" if metric is None else "scalar"',
        ("tests/solvers/test_select.py::test_a_solver_is_refused_where_it_is_given",),
    ),
    Mutation(
        "methods/prox_sgd.py",
        "transform=optax.ema(b1, debias=False)",
        "transform=optax.ema(b1)",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[ema_sgd]",),
    ),
    Mutation(
        "methods/prox_ssi.py",
        "decay_after_step=True",
        "decay_after_step=False",
        (
            "tests/methods/test_equivalences.py::"
            "test_prox_ssi_without_regularizer_is_adamw_with_the_correction_in_the_step",
        ),
    ),
    Mutation(
        "methods/prox_ssi.py",
        "lambda nu: jnp.sqrt(nu) + eps, state.nu)",
        "lambda nu: jnp.sqrt(nu + eps), state.nu)",
        (
            "tests/methods/test_equivalences.py::"
            "test_prox_ssi_without_regularizer_is_adamw_with_the_correction_in_the_step",
        ),
    ),
    Mutation(
        "methods/ramda.py",
        "adaptive_dual_averaging(learning_rate, eps, restarts, anchor_dtype)",
        "adaptive_dual_averaging(learning_rate, restarts=restarts, anchor_dtype=anchor_dtype)",
        ("tests/methods/test_equivalences.py::test_ramda_without_regularizer_is_madgrad[1.0]",),
    ),
    Mutation(
        "methods/ramda.py",
        "iterate_averaging(averaging, iterate_dtype),",
        "iterate_averaging(averaging),",
        (
            "tests/averaging/test_iterate_averaging.py::"
            "test_parameters_stay_within_rounding_of_the_kept_iterate[float32-ramda]",
        ),
    ),
    Mutation(
        "methods/rmda.py",
        "dual_averaging(learning_rate, restarts, anchor_dtype)",
        "dual_averaging(learning_rate, anchor_dtype=anchor_dtype)",
        ("tests/test_golden.py::test_method_follows_golden_trajectory[rmda-glasso--None-1e-10]",),
    ),
    # metrics
    Mutation(
        "metrics/spectral_numbers.py",
        "jnp.roll(sizes, rank)",
        "sizes",
        ("tests/metrics/test_certificate_rank.py::test_the_certificate_of_a_rank_is_that_of_the_gradients[rmda]",),
    ),
    Mutation(
        "metrics/spectral_numbers.py",
        " - self.fade - 2",
        " - 2",
        ("tests/metrics/test_certificate_rank.py::test_the_certificate_of_a_rank_is_that_of_the_gradients[ramda]",),
    ),
    Mutation(
        "metrics/spectral_numbers.py",
        " - 2 * self.error",
        "",
        ("tests/metrics/test_certificate_rank.py::test_the_worst_margin_of_an_inexact_solve_lacks_twice_its_error",),
    ),
    Mutation(
        "metrics/spectral_numbers.py",
        "return self.largest / self.metric",
        "return jnp.ones_like(self.metric)",
        ("tests/metrics/test_certificate_rank.py::test_the_certificate_of_a_rank_is_that_of_the_gradients[ramda]",),
    ),
    Mutation(
        "metrics/sparsity.py",
        "supports = [given.support(leaf) for leaf, given in leaves]\n    return _share([count(~alive)",
        "supports = [given.support(leaf) for leaf, given in leaves]\n    return _share([count(alive)",
        ("tests/metrics/test_sparsity.py::test_sparsities_of_a_tree_counted_by_hand",),
    ),
    Mutation(
        "metrics/sparsity.py",
        "count(~given.support(leaf)), given.sizes(leaf.shape)",
        "count(~given.support(leaf)), 1",
        ("tests/metrics/test_sparsity.py::test_sparsities_of_a_tree_counted_by_hand",),
    ),
    Mutation(
        "metrics/sparsity.py",
        "tuple(range(leaf.ndim - 2))",
        "tuple(range(leaf.ndim - 1))",
        ("tests/metrics/test_sparsity.py::test_sparsities_of_a_tree_counted_by_hand",),
    ),
    Mutation(
        "metrics/sparsity.py",
        "ranks.append(size - alive)",
        "ranks.append(alive)",
        ("ramda_jax/metrics/sparsity.py",),
    ),
    Mutation(
        "metrics/sparsity.py",
        "jnp.asarray(loss + strength * psi)",
        "jnp.asarray(loss + psi)",
        ("tests/metrics/test_sparsity.py::test_objective_adds_strength_times_psi_of_all_regularized_leaves",),
    ),
    Mutation(
        "metrics/support.py",
        "jnp.asarray(before[path] != after[path])",
        "jnp.asarray(before[path] > after[path])",
        ("tests/metrics/test_support.py::test_changed_groups_counts_both_directions_over_all_leaves",),
    ),
    Mutation(
        "metrics/history.py",
        "if self.steps and step <= self.steps[-1]:",
        "if self.steps and step < self.steps[-1]:",
        ("tests/metrics/test_support.py::test_history_refuses_steps_that_do_not_grow_and_other_leaves",),
    ),
    Mutation(
        "metrics/history.py",
        "np.sum(at <= limit)",
        "np.sum(at < limit)",
        ("tests/metrics/test_support.py::test_history_is_that_of_a_naive_loop",),
    ),
    Mutation(
        "metrics/history.py",
        "self.steps[-1] - self.last_change >= duration",
        "self.steps[-1] - self.last_change > duration",
        ("tests/metrics/test_support.py::test_history_is_that_of_a_naive_loop",),
    ),
    Mutation(
        "metrics/history.py",
        "alive = {path: np.array(leaf) for",
        "alive = {path: np.asarray(leaf) for",
        ("tests/metrics/test_history.py::test_history_copies_arrays_that_are_written_to_later",),
    ),
    Mutation(
        "metrics/history.py",
        "sum(self.changes[i : i + 2])",
        "self.changes[i]",
        ("tests/metrics/test_history.py::test_history_keeps_few_records_of_many_steps_and_loses_no_change",),
    ),
    # kernels
    Mutation(
        "xla/tile_kernels.py",
        "other=None if mask is None else 0",
        "other=None if mask is None else 1",
        ("tests/xla/test_tile_kernels.py::test_a_kernel_gives_what_its_function_gives_of_the_whole",),
    ),
    Mutation(
        "xla/tile_plans.py",
        "{-1: 128, -2: 32 // itemsize}",
        "{-1: 128, -2: 8}",
        ("tests/xla/test_tile_plans.py::test_a_tile_has_whole_groups_in_the_lengths_that_the_chip_can_take",),
    ),
    Mutation(
        "fused/leaf_step.py",
        "reset(is_first, anchor, params[0]) if self.restarts else anchor",
        "anchor",
        ("tests/fused/test_fused.py::test_the_path_with_kernels_is_that_without",),
    ),
    Mutation(
        "fused/transformation.py",
        "isinstance(claim, str) or isinstance(strength, Target)",
        "isinstance(claim, str)",
        ("tests/fused/test_fused.py::test_leaves_of_a_target_have_no_kernel_and_the_others_do",),
    ),
    Mutation(
        "fused/transformation.py",
        "has_dtypes and not is_on_several_devices(leaf)",
        "has_dtypes",
        ("tests/fused/test_fused.py::test_leaves_on_several_devices_have_no_kernel",),
    ),
    # models
    Mutation(
        "builders/adaptive_dual_averaging.py",
        "return root(grad_sq_sum) + epsilon.astype(grad_sq_sum.dtype)",
        "return root(grad_sq_sum + epsilon.astype(grad_sq_sum.dtype))",
        (
            "tests/builders/test_dual_averaging.py::"
            "test_builder_follows_the_papers_formulas_with_numbers_in_float32[ramda]",
        ),
    ),
    Mutation(
        "builders/adaptive_dual_averaging.py",
        "jnp.square(limited(gradient, total.dtype))",
        "limited(jnp.square(gradient), total.dtype)",
        ("tests/builders/test_dual_averaging.py::test_squares_of_float16_gradients_neither_vanish_nor_overflow",),
    ),
    Mutation(
        "builders/adaptive_dual_averaging.py",
        "total = reset(is_first, total, 0)\n    return saturated",
        "return saturated",
        ("tests/builders/test_dual_averaging.py::test_restart_is_lazy[ramda]",),
    ),
    Mutation(
        "builders/adaptive_dual_averaging.py",
        "anchor=reset(is_first, state.anchor, params)",
        "anchor=state.anchor",
        ("tests/builders/test_dual_averaging.py::test_restart_is_lazy[ramda]",),
    ),
    Mutation(
        "builders/adaptive_dual_averaging.py",
        "at_step(eps, state.model_step, alpha.dtype)",
        "at_step(eps, state.stage_step, alpha.dtype)",
        ("tests/builders/test_dual_averaging.py::test_schedules_count_on_over_restarts[ramda]",),
    ),
    Mutation(
        "builders/dual_averaging.py",
        "metric = jnp.sqrt(jnp.maximum(self.stage_step, 1).astype(self.step_size_sum.dtype))",
        "metric = jnp.maximum(self.stage_step, 1).astype(self.step_size_sum.dtype)",
        (
            "tests/builders/test_dual_averaging.py::"
            "test_builder_follows_the_papers_formulas_with_numbers_in_float32[rmda]",
        ),
    ),
    Mutation(
        "builders/dual_averaging.py",
        "jnp.maximum(self.stage_step, 1)",
        "jnp.maximum(self.stage_step, 0)",
        ("tests/builders/test_dual_averaging.py::test_fresh_state_gives_a_model_whose_minimiser_is_the_anchor[rmda]",),
    ),
    Mutation(
        "builders/dual_averaging.py",
        "jnp.sqrt(stage_step.astype(dtype))",
        "jnp.sqrt(stage_step).astype(dtype)",
        ("tests/builders/test_dual_averaging.py::test_builder_keeps_every_leafs_own_precision_in_a_mixed_tree[rmda]",),
    ),
    Mutation(
        "builders/dual_averaging.py",
        "step_size.astype(total.dtype) * g, total, g)",
        "(step_size.astype(jnp.float16) * g.astype(jnp.float16)).astype(total.dtype), total, g)",
        ("tests/builders/test_dual_averaging.py::test_sums_do_not_lose_float16_gradients_times_small_step_sizes",),
    ),
    Mutation(
        "builders/restarts.py",
        "jax.tree.map(narrowed, copy(params))",
        "jax.tree.map(narrowed, params)",
        ("tests/builders/test_dual_averaging.py::test_anchor_shares_no_buffer_with_the_parameters[rmda]",),
    ),
    Mutation(
        "builders/preconditioned.py",
        "kept = 1 - rate * at_step(",
        "kept = 1 - at_step(",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[adamw_decay]",),
    ),
    Mutation(
        "builders/preconditioned.py",
        "if decay_after_step:",
        "if not decay_after_step:",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[adamw_decay]",),
    ),
    Mutation(
        "builders/preconditioned.py",
        "lambda u, d: u * d",
        "lambda u, d: u / d",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[rmsprop]",),
    ),
    Mutation(
        "builders/preconditioned.py",
        "diagonal, weight=rate, objective_scale=rate, linear_factor=linear_factor",
        "diagonal, weight=rate, linear_factor=linear_factor",
        (
            "tests/methods/test_equivalences.py::test_the_model_has_gradients_that_are_not_rounded_to_the_parameters_dtype",
        ),
    ),
    Mutation(
        "builders/preconditioned.py",
        "x.astype(sums_dtype(p.dtype))",
        "x.astype(p.dtype)",
        (
            "tests/methods/test_equivalences.py::test_a_transformation_that_reads_the_parameters_computes_in_the_dtype_of_the_sums",
        ),
    ),
    Mutation(
        "builders/quadratic.py",
        "return self.metric * self.anchor - self.slope",
        "return self.metric * self.anchor + self.slope",
        ("ramda_jax/subproblem/proximal_point.py",),
    ),
    Mutation(
        "builders/quadratic.py",
        "return self.anchor - self.slope / self.metric",
        "return self.anchor - self.slope * self.metric",
        ("tests/methods/test_equivalences.py::test_method_without_regularizer_is_optax[rmsprop]",),
    ),
    Mutation(
        "builders/quadratic.py",
        "0.5 * (self.metric * step)",
        "(self.metric * step)",
        ("tests/solvers/test_proximal_gradient.py::test_released_rule_is_the_released_codes_loop[block-1e-08-100-0]",),
    ),
    Mutation(
        "builders/restarts.py",
        "step == jnp.asarray(restarts, dtype=step.dtype)",
        "step + 1 == jnp.asarray(restarts, dtype=step.dtype)",
        ("tests/builders/test_dual_averaging.py::test_restart_is_lazy[rmda]",),
    ),
    Mutation(
        "numerics/trees.py",
        "jnp.zeros_like(p, dtype=sums_dtype(p.dtype))",
        "jnp.zeros_like(p)",
        ("tests/builders/test_dual_averaging.py::test_sums_of_half_precision_gradients_do_not_stall",),
    ),
    Mutation(
        "builders/uncorrected_adam.py",
        "jnp.sqrt(weight_of_average(b2, count, dtype)) / weight_of_average(b1, count, dtype)",
        "weight_of_average(b2, count, dtype) / weight_of_average(b1, count, dtype)",
        (
            "tests/methods/test_equivalences.py::"
            "test_prox_ssi_without_regularizer_is_adamw_with_the_correction_in_the_step",
        ),
    ),
    Mutation(
        "builders/uncorrected_adam.py",
        "m / (jnp.sqrt(v) + eps)",
        "m / jnp.sqrt(v + eps)",
        ("tests/methods/test_equivalences.py::test_prox_ssi_is_prox_gen_with_the_direction_of_uncorrected_adam",),
    ),
    # regularizers
    Mutation(
        "regularizers/base.py",
        "return self.prox(rhs / metric, weight / metric)",
        "return self.prox(rhs / metric, weight)",
        ("tests/solvers/test_select.py::test_closed_form_in_a_scalar_metric_is_what_proximal_gradient_finds",),
    ),
    Mutation(
        "regularizers/base.py",
        "return norm(w - self.prox(w + slope, weight))",
        "return norm(w - self.prox(w - slope, weight))",
        (
            "tests/regularizers/test_subproblem.py::"
            "test_default_subdifferential_distance_vanishes_where_the_true_one_does[Projection simplex]",
        ),
    ),
    Mutation(
        "regularizers/box.py",
        "jnp.where(weight > 0, jnp.clip(x, self.lower, self.upper), x)",
        "jnp.clip(x, self.lower, self.upper)",
        ("tests/regularizers/test_each.py::test_box_value_is_infinite_outside_and_unconstrained_without_a_weight",),
    ),
    Mutation(
        "regularizers/box.py",
        "(w <= self.lower) | (w >= self.upper)",
        "(w < self.lower) | (w > self.upper)",
        ("tests/regularizers/test_each.py::test_box_reaches_its_bounds_exactly",),
    ),
    Mutation(
        "regularizers/box.py",
        "jnp.maximum(slope, 0), jnp.maximum(-slope, 0)",
        "jnp.maximum(-slope, 0), jnp.maximum(slope, 0)",
        ("tests/regularizers/test_subproblem.py::test_subdifferential_distance_is_that_of_the_definition[Box]",),
    ),
    Mutation(
        "regularizers/box.py",
        "jnp.where(weight > 0, self.function(x), x)",
        "self.function(x)",
        ("tests/regularizers/test_each.py::test_projection_takes_any_function_and_is_compared_by_identity",),
    ),
    Mutation(
        "regularizers/elementwise.py",
        "return x - jnp.clip(x, -threshold, threshold)",
        "return x - jnp.clip(x, 0, threshold)",
        ("ramda_jax/regularizers/l1.py",),
    ),
    Mutation(
        "regularizers/groups/lasso.py",
        "return NormPenalty(weight * group_weight)\n\n\n@dataclasses",
        "return NormPenalty(weight)\n\n\n@dataclasses",
        ("tests/regularizers/test_group_lasso.py::test_value_is_the_sum_of_the_weighted_norms",),
    ),
    Mutation(
        "regularizers/groups/axes.py",
        "if shape[-2] == 1 else (-2,)",
        "if shape[-2] == 1 else (-1,)",
        ("tests/regularizers/test_groups.py::test_layout_gives_the_axes_and_number_of_groups",),
    ),
    Mutation(
        "regularizers/groups/axes.py",
        "*parents, layer, _ =",
        "*parents, _, layer =",
        ("tests/regularizers/test_groups.py::test_layout_gives_the_axes_and_number_of_groups",),
    ),
    Mutation(
        "regularizers/groups/regularizer.py",
        "return math.sqrt(self.sizes(shape))",
        "return self.sizes(shape)",
        ("tests/regularizers/test_groups.py::test_group_weight",),
    ),
    Mutation(
        "regularizers/groups/regularizer.py",
        "return math.sqrt(math.prod(shape))",
        "return math.sqrt(self.sizes(shape))",
        ("tests/regularizers/test_groups.py::test_group_weight",),
    ),
    Mutation(
        "numerics/norms.py",
        "return jnp.any(x != 0, axis=",
        "return jnp.all(x != 0, axis=",
        ("tests/regularizers/test_group_lasso.py::test_support_and_sizes_are_those_of_a_loop_over_groups",),
    ),
    Mutation(
        "regularizers/groups/regularizer.py",
        "self.norm_penalty(weight * (1 - self.l1_ratio), weights)",
        "self.norm_penalty(weight, weights)",
        ("ramda_jax/regularizers/groups/lasso.py",),
    ),
    Mutation(
        "regularizers/groups/regularizer.py",
        "+ self.l1_ratio * jnp.sum(jnp.abs(w))",
        "+ jnp.sum(jnp.abs(w))",
        ("tests/regularizers/test_subproblem.py::test_value_is_that_of_the_definition[SparseGroupLasso-float32]",),
    ),
    Mutation(
        "regularizers/groups/regularizer.py",
        "        if not self.convex:\n            return None\n",
        "",
        ("tests/regularizers/test_nonconvex.py::test_proximal_gradient_descends_to_a_stationary_point",),
    ),
    Mutation(
        "regularizers/l1.py",
        "return self._reduced(rhs, weight) / metric",
        "return self._reduced(rhs / metric, weight)",
        (
            "tests/regularizers/test_subproblem.py::"
            "test_exact_solvers_leave_a_kkt_residual_at_rounding[L1-2 decades-float32]",
        ),
    ),
    Mutation(
        "regularizers/l1.py",
        "return jnp.abs(rhs) <= weight * self.factor",
        "return rhs <= weight * self.factor",
        ("tests/solvers/test_accelerated.py::test_first_iterations_are_fista[float32]",),
    ),
    Mutation(
        "regularizers/mcp.py",
        "return NormPenalty(weight, weight / self.omega, self.omega)",
        "return NormPenalty(weight, weight * self.omega, self.omega)",
        ("ramda_jax/regularizers/mcp.py",),
    ),
    Mutation(
        "regularizers/mcp.py",
        "return self.gamma * group_weight",
        "return self.gamma",
        (
            "tests/regularizers/test_nonconvex.py::"
            "test_mcp_of_the_papers_is_strength_lambda_and_omega_lambda_times_theirs",
        ),
    ),
    Mutation(
        "regularizers/mcp.py",
        "weight / omega, omega * group_weight)",
        "weight / omega, omega)",
        (
            "tests/regularizers/test_nonconvex.py::"
            "test_mcp_of_the_papers_is_strength_lambda_and_omega_lambda_times_theirs",
        ),
    ),
    Mutation(
        "regularizers/nuclear_norm.py",
        "jnp.max(weight) * self.factor  #",
        "jnp.max(weight)  #",
        ("tests/regularizers/test_subproblem.py::test_moreau_identity[NuclearNorm]",),
    ),
    Mutation(
        "regularizers/nuclear_norm.py",
        "jnp.where(weight > 0, product, matrix)",
        "product",
        (
            "tests/regularizers/test_subproblem.py::"
            "test_prox_without_a_weight_is_the_identity_to_the_bit[NuclearNorm-float32]",
        ),
    ),
    Mutation(
        "regularizers/nuclear_norm.py",
        'split = 1 if ndim == 3 and layer in ("query", "key", "value") else -1',
        "split = -1",
        ("tests/regularizers/test_each.py::test_nuclear_norm_splits_axes_into_rows_and_columns",),
    ),
    Mutation(
        "regularizers/nuclear_norm.py",
        "jnp.sqrt(columns) * jnp.sqrt(rows)",
        "columns * rows",
        ("tests/regularizers/test_each.py::test_nuclear_screening_is_never_wrong",),
    ),
    Mutation(
        "regularizers/nuclear_norm.py",
        "jnp.sqrt(jnp.maximum(squares, 0)) * scale",
        "jnp.sqrt(jnp.maximum(squares, 0))",
        (
            "tests/regularizers/test_each.py::test_nuclear_prox_by_gram_errs_by_the_rounding_of_the_gram_matrix_over_the_threshold[shape0-0.5-float32]",
        ),
    ),
    Mutation(
        "regularizers/quantized.py",
        "jnp.abs(x - other) <= jnp.abs(x - level)",
        "jnp.abs(x - other) < jnp.abs(x - level)",
        ("tests/regularizers/test_each.py::test_ties_between_levels_go_to_the_greater_one",),
    ),
    Mutation(
        "regularizers/quantized.py",
        "tuple(sorted(float(level) for level in self.levels))",
        "tuple(float(level) for level in self.levels)",
        ("tests/regularizers/test_each.py::test_levels_are_sorted_numbers_whatever_sequence_they_come_in",),
    ),
    Mutation(
        "regularizers/groups/norm_penalty.py",
        "self.lam - 0.5 * self.concavity * r",
        "self.lam - self.concavity * r",
        ("tests/regularizers/test_subproblem.py::test_value_is_that_of_the_definition[MCP-float32]",),
    ),
    Mutation(
        "regularizers/groups/norm_penalty.py",
        "slope = metric - self.concavity",
        "slope = metric + self.concavity",
        ("ramda_jax/regularizers/mcp.py",),
    ),
    Mutation(
        "regularizers/groups/norm_penalty.py",
        "(outer >= self.knee) & (objective(outer) < 0)",
        "outer >= self.knee",
        ("tests/regularizers/test_nonconvex.py::test_prox_of_mcp_is_the_hard_threshold_from_weight_omega_on",),
    ),
    Mutation(
        "regularizers/groups/norm_penalty.py",
        "jnp.where(radii >= self.knee, 0, shift - self.concavity)",
        "shift - self.concavity",
        ("ramda_jax/regularizers/mcp.py",),
    ),
    # solvers
    Mutation(
        "subproblem/running/tiles.py",
        "axis = max(groups, key=lambda axis: shape[axis])",
        "axis = min(groups, key=lambda axis: shape[axis])",
        ("tests/subproblem/test_tiles.py::test_the_longest_of_several_group_axes_is_cut",),
    ),
    Mutation(
        "subproblem/running/tiles.py",
        "jax.lax.dynamic_slice_in_dim(x, index * length, length, axis)",
        "jax.lax.dynamic_slice_in_dim(x, index, length, axis)",
        ("tests/subproblem/test_tiles.py::test_a_nan_stays_in_its_group",),
    ),
    Mutation(
        "subproblem/running/tiles.py",
        "residual + jnp.square(solved.residual)",
        "residual + solved.residual",
        ("tests/subproblem/test_tiles.py::test_the_residual_is_that_of_all_tiles",),
    ),
    Mutation(
        "subproblem/running/tiles.py",
        "return jnp.ndim(of_leaf) == jnp.ndim(of_tile) == 0 and of_leaf == of_tile",
        "return True",
        ("tests/subproblem/test_tiles.py::test_a_group_weighs_in_a_tile_what_it_weighs_in_the_leaf",),
    ),
    Mutation(
        "solvers/closed_form.py",
        "regularizer.solve_scaled(model.rhs, model.metric, model.weight)",
        "regularizer.prox(model.center, model.weight)",
        ("tests/solvers/test_select.py::test_closed_form_in_a_scalar_metric_is_what_proximal_gradient_finds",),
    ),
    Mutation(
        "solvers/newton_raphson.py",
        "r + 0.5 * h / slope",
        "r + h / slope",
        ("tests/solvers/test_newton_raphson.py::test_it_is_the_released_loop[1e-07-1e-07-100-0-1]",),
    ),
    Mutation(
        "solvers/newton_raphson.py",
        "jnp.all(jnp.abs(h) < self.atol) | jnp.all(",
        "jnp.all(jnp.abs(h) < self.atol) & jnp.all(",
        ("tests/solvers/test_newton_raphson.py::test_it_is_the_released_loop[0.01-0.0-100-0-1]",),
    ),
    Mutation(
        "solvers/newton_raphson.py",
        "largest = jnp.max(metric, axis=axes, keepdims=True, initial=0)",
        "largest = jnp.mean(metric, axis=axes, keepdims=True)",
        ("tests/solvers/test_newton_raphson.py::test_it_is_the_released_loop[0.0-0.0-3-0-1]",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "(1 if regularizer.convex else 2) * ",
        "",
        ("tests/regularizers/test_nonconvex.py::test_proximal_gradient_takes_half_the_step_and_descends_at_every_one",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "regularizer.prox_and_value(forward, weight / curvature)",
        "regularizer.prox_and_value(forward, weight)",
        ("tests/solvers/test_proximal_gradient.py::test_released_rule_is_the_released_codes_loop[block-1e-08-100-0]",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        'blocks = regularizer.inner_axes(rhs.ndim) if self.stepsize == "block" else None',
        "blocks = None",
        ("tests/solvers/test_proximal_gradient.py::test_released_rule_is_the_released_codes_loop[block-1e-08-100-0]",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "* (context.share * model.objective_scale), floor",
        "* model.objective_scale, floor",
        ("tests/solvers/test_proximal_gradient.py::test_each_leaf_meets_its_share_of_the_tolerance",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "* (context.share * model.objective_scale), floor",
        "* context.share, floor",
        (
            "tests/regularizers/test_subproblem.py::"
            "test_proximal_gradient_is_within_its_tolerance_where_it_says_so[GroupLasso-2 decades-float64]",
        ),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "(num_steps >= 1) & (change",
        "(change",
        (
            "tests/solvers/test_proximal_gradient.py::"
            "test_released_rule_takes_at_least_two_iterations_and_at_most_max_steps",
        ),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "jnp.abs(q - new_q) if self.accelerate else q - new_q",
        "q - new_q",
        ("tests/solvers/test_accelerated.py::test_the_released_rule_looks_at_the_size_of_the_change",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "jnp.sum((y - new) * (new - z)) > 0",
        "jnp.sum((y - new) * (new - z)) < 0",
        ("tests/solvers/test_accelerated.py::test_first_iterations_are_fista[float32]",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "converged = (residual <= floor)",
        "converged = (residual <= 0)",
        ("tests/solvers/test_proximal_gradient.py::test_rtol_zero_never_stops_early",),
    ),
    Mutation(
        "solvers/proximal_gradient.py",
        "(jnp.asarray(step, dtype=float) + 1) ** (power / parts)",
        "jnp.asarray(step, dtype=float) ** (power / parts)",
        ("tests/solvers/test_proximal_gradient.py::test_summable_tolerance_is_the_power_of_the_step",),
    ),
    Mutation(
        "subproblem/state.py",
        'kind = "scalar" if metric.ndim == 0 else "diagonal"',
        'kind = "scalar"',
        ("tests/solvers/test_select.py::test_a_solver_is_refused_where_it_is_given",),
    ),
    Mutation(
        "subproblem/leaf_problems.py",
        "share = math.sqrt(leaf.size / max(regularized, 1))",
        "share = leaf.size / max(regularized, 1)",
        ("tests/solvers/test_proximal_gradient.py::test_the_squares_of_the_shares_add_up_to_one",),
    ),
    Mutation(
        "subproblem/strengths/law.py",
        "jnp.asarray(model.weight) * strength",
        "jnp.asarray(strength)",
        ("tests/test_golden.py::test_method_follows_golden_trajectory[rmda-glasso--None-1e-10]",),
    ),
    Mutation(
        "subproblem/restore.py",
        "last_step = jnp.maximum(state.proximal_step - 1, 0)",
        "last_step = state.proximal_step",
        ("tests/inspection/test_eval_params.py::test_eval_params_solves_anew_to_the_tolerance_of_the_last_step",),
    ),
    Mutation(
        "subproblem/proximal_point.py",
        "proximal_step=next_count(step)",
        "proximal_step=step",
        ("tests/inspection/test_eval_params.py::test_eval_params_solves_anew_to_the_tolerance_of_the_last_step",),
    ),
    Mutation(
        "solvers/secular_gauss.py",
        "skew = moments.third * inverse - mean * (3 * variance + mean * mean)",
        "skew = moments.third * inverse - mean * (variance + mean * mean)",
        ("tests/solvers/test_secular_gauss.py::test_the_error_is_of_fourth_order_where_newtons_is_of_second",),
    ),
    Mutation(
        "solvers/secular_gauss.py",
        "    fourth = fourth * fourth\n",
        "",
        ("tests/solvers/test_secular_gauss.py::test_one_step_per_leaf_when_little_has_changed_and_more_when_much_has",),
    ),
    Mutation(
        "solvers/secular_gauss.py",
        "(left * left) + remainder)",
        "(left * left))",
        ("tests/solvers/test_secular_gauss.py::test_one_pass_ends_left_of_the_root_and_within_its_bound",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "> eps) & (number < most)",
        "> eps) & (number <= most)",
        ("tests/solvers/test_secular_gauss.py::test_a_step_limit_is_reported",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "run.largest(jnp.max(errors, initial=0)) > eps",
        "run.largest(jnp.max(errors, initial=0)) >= jnp.inf",
        ("tests/solvers/test_secular_gauss.py::test_one_step_per_leaf_when_little_has_changed_and_more_when_much_has",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "jnp.where(is_free, 0, 1 + 2 * eps)",
        "jnp.where(is_free, 0, 1 - 2 * eps)",
        ("tests/solvers/test_secular_newton.py::test_secular_newton_makes_no_nan_on_the_way_in_float32",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "~step.has_root & (from_zero | (number > 0))",
        "~step.has_root",
        (
            "tests/solvers/test_secular_passes.py::test_a_concave_penalty_gets_the_lower_of_both_minima_below_and_beyond_its_knee",
        ),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "(step.is_far_right & (number == 0) & ~settled)",
        "False",
        ("tests/solvers/test_secular_gauss.py::test_a_radius_of_any_size_leads_to_the_solution[float32]",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "return jnp.where(is_done, radii, new), errors",
        "return new, errors",
        ("tests/solvers/test_secular_gauss.py::test_the_result_of_a_group_does_not_depend_on_other_groups",),
    ),
    Mutation(
        "solvers/secular_passes.py",
        "jnp.where(is_free, jnp.sqrt(tiny), groups.start)",
        "jnp.where(is_free, 1, groups.start)",
        ("tests/solvers/test_secular_newton.py::test_without_a_weight_only_what_underflows_is_zero",),
    ),
    Mutation(
        "solvers/secular_pass.py",
        "0.5 - 0.5 * gain < inner_value",
        "0.5 - 0.5 * gain < jnp.inf * jnp.ones_like(inner_value) + inner_value",
        (
            "tests/regularizers/test_nonconvex.py::"
            "test_exact_solver_is_never_above_what_a_search_of_everything_finds[GroupMCP omega-2-concave-float64]",
        ),
    ),
    Mutation(
        "solvers/secular_pass.py",
        "metric = metric - penalty.concavity",
        "metric = metric + 0 * penalty.concavity",
        (
            "tests/regularizers/test_nonconvex.py::"
            "test_exact_solver_is_never_above_what_a_search_of_everything_finds[GroupMCP omega-2-convex-float64]",
        ),
    ),
    Mutation(
        "solvers/secular_gauss.py",
        "jnp.where(slope > 0, slope, 1), 0)",
        "jnp.where(slope > 0, slope, 1), -jnp.inf)",
        (
            "tests/solvers/test_secular_newton.py::test_secular_newton_takes_at_most_12_passes_when_problems_are_made_to_be_hard[float32-2]",
        ),
    ),
    Mutation(
        "xla/execution.py",
        "rhs / divisor, jnp.minimum(metric * reach, jnp.finfo(rhs.dtype).max) / divisor",
        "rhs / divisor, (metric * reach) / divisor",
        ("tests/solvers/test_secular_gauss.py::test_a_radius_of_any_size_leads_to_the_solution[float32]",),
    ),
    Mutation(
        "solvers/douglas_rachford.py",
        "first_v = start - (rhs",
        "first_v = start + (rhs",
        ("tests/solvers/test_douglas_rachford.py::test_a_solution_stays_one",),
    ),
    Mutation(
        "solvers/douglas_rachford.py",
        "v = v + RELAXATION",
        "v = RELAXATION",
        (
            "tests/solvers/test_douglas_rachford.py::"
            "test_it_stops_by_the_reported_subgradient_which_bounds_the_distance_of_zero[0.01]",
        ),
    ),
    Mutation(
        "solvers/select.py",
        "kind(max_steps=5, rtol=1e-3)",
        "kind()",
        ("tests/solvers/test_select.py::test_default_solver_follows_its_table",),
    ),
    Mutation(
        "solvers/select.py",
        "if regularizer.elementwise:",
        "if not regularizer.elementwise:",
        ("tests/solvers/test_select.py::test_default_solver_follows_its_table",),
    ),
    # structure
    Mutation(
        "structure/alone.py",
        'r")$"\n',
        'r")"\n',
        ("tests/structure/test_assignment.py::test_is_selected_alone",),
    ),
    Mutation(
        "structure/assignment.py",
        "re.search(self.key, place.name) is not None",
        "re.match(self.key, place.name) is not None",
        ("tests/structure/test_assignment.py::test_patterns_search_anywhere_and_take_what_alone_would_not",),
    ),
    Mutation(
        "structure/assignment.py",
        "self.keys is not None and place.keys[: len(self.keys)] == self.keys != place.keys",
        "self.keys is not None and place.keys[: len(self.keys)] == self.keys",
        ("tests/structure/test_assignment.py::test_a_tree_or_prefix_of_regularizers",),
    ),
    Mutation(
        "structure/assignment.py",
        "                    regularizer = rule.regularizer\n                break\n",
        "                    regularizer = rule.regularizer\n",
        ("tests/structure/test_assignment.py::test_first_matching_pattern_wins",),
    ),
    Mutation(
        "structure/alone.py",
        "return ndim >= 2 and not",
        "return ndim > 2 and not",
        ("tests/structure/test_assignment.py::test_is_selected_alone",),
    ),
    Mutation(
        "structure/assignment.py",
        "if leaves and not masked:",
        "if leaves:",
        ("tests/structure/test_assignment.py::test_what_is_masked_cannot_be_told_from_a_mistake",),
    ),
    Mutation(
        "structure/paths.py",
        'path[-1].name == "value":',
        'path[-1].name != "value":',
        ("tests/structure/test_paths.py::test_names_are_joined_keys",),
    ),
    Mutation(
        "structure/paths.py",
        "return nones, masked",
        "return masked, nones",
        ("tests/structure/test_paths.py::test_hidden_names_are_those_of_none_and_masked_nodes",),
    ),
    Mutation(
        "structure/paths.py",
        'return EMPTY_KEY if keys == ("",) else "/".join(keys)',
        'return "/".join(keys)',
        ("tests/structure/test_unique_names.py::test_a_vector_under_the_empty_key_is_a_bias_and_no_bare_array",),
    ),
    Mutation(
        "structure/belonging.py",
        "if shape != _shape(leaf):",
        "if len(shape) != len(_shape(leaf)):",
        ("tests/test_belonging.py::test_the_parts_of_a_chain_refuse_what_is_not_theirs",),
    ),
    Mutation(
        "structure/belonging.py",
        "jnp.finfo(leaf.dtype).bits >= 32",
        "jnp.finfo(leaf.dtype).bits >= 16",
        ("tests/test_belonging.py::test_a_step_refuses_sums_in_half_precision",),
    ),
]


class BrokenCatalogue(Exception):
    """An entry that does not fit the checkout."""


def mutated(mutation, root):
    """The source of the mutation's file with the fault."""
    path = root / PACKAGE / mutation.file
    if not path.is_file():
        raise BrokenCatalogue(f"There must be a file {path}.")
    text = path.read_text()
    count = text.count(mutation.old)
    if count != 1 or mutation.old == mutation.new:
        raise BrokenCatalogue(
            f"In {PACKAGE}/{mutation.file} a text to change must occur exactly once, but this one occurs {count} times "
            f"(or is not changed):\n{mutation.old}"
        )
    source = text.replace(mutation.old, mutation.new)
    try:
        ast.parse(source)
    except SyntaxError as error:
        raise BrokenCatalogue(f"In {PACKAGE}/{mutation.file} this must be Python: {error}\n{mutation.new}") from None
    return source


class Copy:
    """A private copy of a checkout in which one process at a time runs tests.

    Attributes:
        root: the folder of the copy.
        programs: the folder in which JAX keeps compiled programs.
    """

    def __init__(self, checkout, folder):
        self.root = folder / "checkout"
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        # Copy uncommitted files too, but not ignored files such as environments.
        listed = subprocess.run(
            ["git", "-C", checkout, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
            text=True,
        )
        for name in set(listed.stdout.split("\0")) - {""}:
            source, target = checkout / name, self.root / name
            if source.is_file():  # a deleted file may still be listed
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def pytest(self, *arguments, limit=None):
        """(exit code, output); None for the code if it took longer than the limit."""
        environment = os.environ | {
            "NPROC": "1",  # XLA's threads
            # Without this, a file that changes twice in a second with the same length would be loaded from its old
            # bytecode.
            "PYTHONDONTWRITEBYTECODE": "1",
            # Programs that a fault does not change come from the run without faults.
            "JAX_COMPILATION_CACHE_DIR": str(self.programs),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=self.root,
                env=environment,
                timeout=limit,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout

    def run_with(self, file, source, *tests, limit=None):
        """Runs tests while a file of the package has another content."""
        path = self.root / PACKAGE / file
        before = path.read_text()
        path.write_text(source)
        try:
            return self.pytest("-x", *tests, limit=limit)
        finally:
            path.write_text(before)

    def check_that_it_is_imported(self):
        """Raises unless the tests import the copy's package, and not an installed one."""
        words = "the package of the copy"
        _, output = self.run_with("__init__.py", f"raise RuntimeError({words!r})\n", "tests/test_public_api.py")
        if words not in output:
            raise BrokenCatalogue(f"The tests must import {self.root / PACKAGE}, but do not:\n{output}")

    def check_without_faults(self, selections):
        """Raises unless each selection matches tests and all of them pass."""
        _, output = self.pytest("--collect-only", *selections)
        found = [line for line in output.splitlines() if "::" in line]
        for selection in selections:
            # A selection may be a test, a case of it, a file or a folder.
            parts = tuple(selection + end for end in ("[", "::", "/"))
            if not any(name == selection or name.startswith(parts) for name in found):
                raise BrokenCatalogue(f"This must select tests, but does not: {selection}\n{output[-2000:]}")
        code, output = self.pytest("-x", *selections)
        if code != 0:
            raise BrokenCatalogue(f"Without a fault all tests must pass, but pytest has returned {code}:\n{output}")


def outcome(copy, mutation):
    """(whether the tests have found the fault, a text about it)."""
    start = time.monotonic()
    source = mutated(mutation, copy.root)
    code, output = copy.run_with(mutation.file, source, *mutation.tests, limit=LIMIT)
    caught = code in (TESTS_FAILED, None)
    word = {TESTS_FAILED: "caught", None: "caught (too slow)", 0: "SURVIVED"}.get(code, f"BROKEN (exit code {code})")
    line = f"{word:8} {time.monotonic() - start:5.1f} s  {mutation}"
    return caught, line if caught or code == 0 else f"{line}\n{output[-2000:]}"


def run(mutations, checkout, jobs):
    """Tries all mutations, prints a line for each, and returns the number of missed faults."""
    for mutation in mutations:
        mutated(mutation, checkout)
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="ramda_jax_mutations_") as folder,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        copies = [Copy(checkout, Path(folder) / str(number)) for number in range(jobs)]
        selections = list(dict.fromkeys(test for mutation in mutations for test in mutation.tests))
        shares = [selections[number::jobs] for number in range(jobs)]
        list(pool.map(Copy.check_that_it_is_imported, copies))
        list(pool.map(Copy.check_without_faults, copies, shares))
        for source, target in itertools.permutations(copies, 2):
            shutil.copytree(source.programs, target.programs, dirs_exist_ok=True)
        print(f"{len(selections)} selections of tests pass without a fault ({time.monotonic() - start:.0f} s).")
        free = queue.SimpleQueue()
        for copy in copies:
            free.put(copy)

        def attempt(mutation):
            copy = free.get()
            try:
                return outcome(copy, mutation)
            finally:
                free.put(copy)

        passed = 0
        for done in concurrent.futures.as_completed([pool.submit(attempt, mutation) for mutation in mutations]):
            caught, line = done.result()
            passed += caught
            print(line, flush=True)
    print(f"{passed} passed, {len(mutations) - passed} failed")
    return len(mutations) - passed


def listing(mutations):
    """Lines for all mutations with their tests, and their numbers by folder."""
    for mutation in mutations:
        yield str(mutation)
        yield from (f"    {test}" for test in mutation.tests)
    folders = collections.Counter(Path(mutation.file).parent.as_posix() for mutation in mutations)
    yield ", ".join(f"{folder}: {count}" for folder, count in folders.items()) + f"; {len(mutations)} in all"


def main(arguments=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=str(__doc__).split("\n")[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="only mutations of files with TEXT in their names")
    parser.add_argument("--jobs", type=int, default=2, help="the number of processes (default: 2)")
    parser.add_argument("--list", action="store_true", help="print the mutations and their tests and run nothing")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="another checkout to use")
    options = parser.parse_args(arguments)
    mutations = [mutation for mutation in MUTATIONS if options.only in mutation.file]
    if options.list:
        print("\n".join(listing(mutations)))
        return 0
    try:
        return int(run(mutations, options.root.resolve(), options.jobs) > 0)
    except BrokenCatalogue as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
