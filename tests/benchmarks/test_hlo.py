"""What `benchmarks.compiled` reads from optimized HLO: from a text with known traffic, and from a real program."""

import jax
import jax.numpy as jnp

from benchmarks.hlo import read_program

TEXT = """HloModule jit_step

%called (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %add.1 = f32[8]{0} fusion(%p), kind=kLoop, calls=%fused
}

%body (p: (f32[1000])) -> (f32[1000]) {
  %p = f32[1000]{0} parameter(0)
  ROOT %add.2 = f32[1000]{0} fusion(%p), kind=kLoop, calls=%fused
}

ENTRY %main (a: f32[100,10], b: bf16[100]) -> f32[100,10] {
  %a = f32[100,10]{1,0} parameter(0)
  %b = bf16[100]{0} parameter(1)
  %small = f32[100]{0:S(1)} fusion(%b), kind=kLoop, calls=%fused
  %called.1 = f32[8]{0} call(%small), to_apply=%called
  %copy-start = (f32[50]{0:S(1)}, f32[50]{0}, u32[]) copy-start(%small)
  %sum = f32[100]{0} all-reduce(%small), to_apply=%add
  %loop = (f32[1000]) while(%sum), condition=%condition, body=%body
  %branch = f32[8]{0} conditional(%sum), true_computation=%called, false_computation=%called
  ROOT %fusion = f32[100,10]{1,0} fusion(%a, %small), kind=kLoop, calls=%fused
}
"""


def test_traffic_kernels_waits_and_collectives_of_a_known_program():
    program = read_program(TEXT)
    # The traffic: b is read (200 bytes), the call reads its operand from memory and writes (64), the copy counts once
    # (200), the sums (400), and the last fusion reads and writes (8,000). Arrays in the chip's own memory are free.
    # Loops and branches do not count.
    assert program.bytes == 200 + 64 + 200 + 400 + 8000
    assert program.kernels == 3
    assert (program.conditionals, program.loops) == (1, 1)
    assert program.collectives == {"all-reduce": 1}


def test_a_product_of_arrays_reads_both_and_writes_one():
    compiled = jax.jit(lambda x, y: x * y).lower(jnp.ones(1000), jnp.ones(1000)).compile()
    assert read_program(compiled.as_text()).bytes == 3 * 4000
