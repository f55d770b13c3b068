"""The two files of a compact model, and the digest that ties them together."""

from typing import Any

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.plan_json import short

ARRAYS, PLAN, NEXT = "variables.safetensors", "plan.json", "plan.next.json"
LARGEST_PLAN = 2**30


def digest_in(document: dict[str, Any]) -> str:
    """The arrays' digest in a plan's file; raises CompactionError if there is none."""
    arrays: Any = document.get("arrays")
    rule = None
    if not isinstance(arrays, dict) or arrays.keys() != {"kinds", "bytes", "sha256"}:
        rule = f"have an entry 'arrays' with kinds, bytes and digest of those in {ARRAYS}"
    elif type(arrays["bytes"]) is not int or not 8 < arrays["bytes"] < 2**63:
        rule = f"have the number of bytes of {ARRAYS}"
    elif not isinstance(arrays["sha256"], str):
        rule = f"have the digest of {ARRAYS}"
    elif not isinstance(arrays["kinds"], dict) or not all(isinstance(kind, str) for kind in arrays["kinds"].values()):
        rule = "have a name for the kind of each array"
    if rule is not None:
        raise CompactionError(
            f"No plan: {PLAN} must {rule}, got {short(arrays)}; give a folder that `save_compact` has written."
        )
    return arrays["sha256"]
