"""RAMDA's step with the group LASSO in one kernel for each leaf."""

from ramda_jax.fused.claims import Claim, check_fused, claim_leaf
from ramda_jax.fused.transformation import ChainSettings, FusedTransformation, fused_chain

__all__ = ["ChainSettings", "Claim", "FusedTransformation", "check_fused", "claim_leaf", "fused_chain"]
