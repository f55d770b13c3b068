"""The public names. A change of them needs a change of this list, of a page in docs/api and of CHANGELOG.md."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import ramda_jax

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "ramda_jax": """
        AdaptiveDualAveragingState Binary Box ClosedForm Context DouglasRachford DualAveragingState GroupLasso
        GroupMCP HoldZerosState IterateAveragingState L1 MCP ModelState NewtonRaphson NofM NuclearNorm Null
        PreconditionedState Projection ProximalGradient ProximalPointState QuadraticModel Quantized Regularizer
        Scaled SecularNewton Solution Solver SolverInfo SparseGroupLasso SparseGroupMCP Target TopEntries
        TopGroups adaptive_dual_averaging check_donation check_last compaction default_solver describe dual_averaging
        eval_params fused_step hold_zeros iterate_averaging metrics preconditioned prox prox_adamw prox_gen prox_sgd
        prox_ssi proximal_point ramda ramda_then_hold regularizers rmda solver_info solvers sqrt_growth
        stage_growth stages structure summable_tolerance
    """,
    "ramda_jax.compaction": """
        AxisOrder Compaction CompactionError Cost Coupling Dims FROZEN Factored Folded FreezeStructureState LeafPlan
        LowRank Member Plan Proof Report Rule Width WidthPlan compact compact_coupling compact_model
        compact_state compaction_report cost costs couple couple_model draw_report expand factor
        fold_constants freeze_structure groups keep_group_weights load_compact low_rank_model low_rank_plan
        plan_compaction rebuild save_compact share_removed trace_dims verify
    """,
    "ramda_jax.metrics": """
        Certificate Overlap SecondMomentsState StructureHistory certificate changed_groups group_sparsity
        kernel_sparsity layer_table low_rank_level numerical_rank objective overlap scale_effect second_moments
        stationarity support unstructured_sparsity weighted_group_sparsity
    """,
    "ramda_jax.regularizers": """
        Binary Box ElementwiseRegularizer GroupLasso GroupMCP GroupRegularizer L1 MCP NofM NormPenalty NuclearNorm
        Null Projection Quantized Regularizer Scaled SparseGroupLasso SparseGroupMCP TopEntries TopGroups
    """,
    "ramda_jax.solvers": """
        ClosedForm Context DouglasRachford NewtonRaphson ProximalGradient SecularNewton Solution Solver SolverInfo
        choose_solver default_solver summable_tolerance
    """,
    "ramda_jax.structure": "Assignment adaptive_weights assign assignment named_leaves path_name regularized_leaves",
}
#: Classes that users receive or derive from, but do not make.
NO_EXAMPLE = (
    "Assignment AxisOrder Certificate Compaction CompactionError Context Cost Coupling Dims ElementwiseRegularizer "
    "Folded GroupRegularizer LeafPlan LowRank Member ModelState NormPenalty Overlap Plan Proof "
    "QuadraticModel Regularizer Report Solution Solver SolverInfo Width WidthPlan"
).split()
#: Functions whose examples would write files. The examples are in these files, and are run.
ELSEWHERE = {"draw_report": "examples/sparse_to_small.py", "save_compact": "docs/compaction.md"}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names.split()]


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_those_of_the_list(module):
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module].split())


def test_the_namespaces_of_the_list_are_all_that_the_package_names():
    namespaces = {name for name in ramda_jax.__all__ if inspect.ismodule(getattr(ramda_jax, name))}
    assert namespaces == {module.split(".")[1] for module in PUBLIC if "." in module}


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_names_are_documented_with_an_example(module, name):
    thing = getattr(importlib.import_module(module), name)
    if inspect.ismodule(thing) or isinstance(thing, str):
        return
    assert thing.__doc__ and thing.__module__.startswith("ramda_jax.")
    if name in ELSEWHERE:
        assert name in (ROOT / ELSEWHERE[name]).read_text()
    elif not name.endswith("State") and name not in NO_EXAMPLE:
        assert ">>>" in thing.__doc__


def test_the_version_is_written_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", ramda_jax.__version__)
    for name in ("pyproject.toml", "CITATION.cff", "docs/conf.py"):
        assert ramda_jax.__version__ not in (ROOT / name).read_text(), name


def test_the_changelog_has_this_version_or_what_will_be_it():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{ramda_jax.__version__}]" in text or f"What will be {ramda_jax.__version__}." in text
