"""RAMDA's step with the group LASSO in one kernel for each leaf."""

from ramda_jax.fused.claims import Claim, check_fused, claim_leaf
from ramda_jax.fused.transformation import ChainSettings, fused_chain, fused_step

__all__ = ["ChainSettings", "Claim", "check_fused", "claim_leaf", "fused_chain", "fused_step"]
