"""The account of a compiled program, on programs whose numbers are known."""

import jax
import jax.numpy as jnp
import pytest

from jaxad.bench._compiled import account
from jaxad.bench._plan import matrix_operations

PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: f32[8,16]) -> bf16[8,16] {
  %p = f32[8,16]{1,0} parameter(0)
  ROOT %convert.1 = bf16[8,16]{1,0} convert(%p)
}

%body (carried: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %carried = (s32[], f32[8,16]{1,0}) parameter(0)
  %item = f32[8,16]{1,0} get-tuple-element(%carried), index=1
  %on_chip = f32[8,16]{1,0:T(8,128)S(1)} copy(%item)
  %all-reduce.3 = f32[8,16]{1,0} all-reduce(%item), replica_groups={{0,1}}, to_apply=%add
  ROOT %out = (s32[], f32[8,16]{1,0}) tuple(%count, %all-reduce.3)
}

ENTRY %main (x: f32[8,16]) -> bf16[8,16] {
  %x = f32[8,16]{1,0:T(8,128)} parameter(0), sharding={devices=[2,1]<=[2]}
  %start = (s32[], f32[8,16]{1,0}) tuple(%zero, %x)
  %while.1 = (s32[], f32[8,16]{1,0}) while(%start), body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %result = f32[8,16]{1,0} get-tuple-element(%while.1), index=1
  %kernel = (f32[8,16]{1,0}, u8[0]{0}) custom-call(%result), custom_call_target="__cudnn$fmhaSoftmax"
  ROOT %fusion.1 = bf16[8,16]{1,0} fusion(%result), kind=kLoop, calls=%fused
}
"""
ARRAY = 8 * 16 * 4
"""Bytes of each float32 array of the program."""


def test_traffic_counts_loops_in_full_fusions_once_and_memory_on_the_chip_not_at_all():
    loop = 3 * (ARRAY + 2 * ARRAY)
    assert account(PROGRAM).traffic == loop + 2 * ARRAY + (ARRAY + ARRAY // 2)


def test_collectives_and_kernels_are_counted_by_kind_and_type():
    found = account(PROGRAM)
    assert found.collectives == {"all-reduce f32": {"runs": 3, "bytes": 3 * ARRAY}}
    assert found.kernels == {"__cudnn$fmhaSoftmax": 1}
    assert found.largest_float32 == "f32[8,16]"


def test_what_a_collective_receives_on_the_chip_counts_too():
    result = "%all-reduce.3 = f32[8,16]{1,0}"
    found = account(PROGRAM.replace(result, result[:-1] + ":T(8,128)S(1)}"))
    assert found.collectives == {"all-reduce f32": {"runs": 3, "bytes": 3 * ARRAY}}


FUSED = """HloModule jit_step, is_scheduled=true

%begin (p: bf16[4,16]) -> (bf16[4,16], bf16[8,16]) {
  %p = bf16[4,16]{1,0} parameter(0)
  %all-gather.1 = bf16[8,16]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
  ROOT %both = (bf16[4,16]{1,0}, bf16[8,16]{1,0}) custom-call(%p), custom_call_target="AsyncCollectiveStart"
}

%meanwhile (p: bf16[4,16]) -> bf16[8,16] {
  %p = bf16[4,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,16]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
}

%end (p: bf16[4,16]) -> bf16[8,16] {
  %p = bf16[4,16]{1,0} parameter(0)
  %all-gather.3 = bf16[8,16]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
  ROOT %done = bf16[8,16]{1,0} custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%scattered (p: f32[8,16]) -> f32[4,16] {
  %p = f32[8,16]{1,0} parameter(0)
  ROOT %reduce-scatter.1 = f32[4,16]{1,0} reduce-scatter(%p), dimensions={0}, to_apply=%add
}

%outer (p: f32[8,16]) -> f32[4,16] {
  %p = f32[8,16]{1,0} parameter(0)
  ROOT %inner = f32[4,16]{1,0} fusion(%p), kind=kCustom, calls=%scattered
}

ENTRY %main (x: f32[8,16], y: bf16[4,16]) -> f32[4,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %y = bf16[4,16]{1,0} parameter(1)
  %begun = (bf16[4,16]{1,0}, bf16[8,16]{1,0}) fusion(%y), kind=kCustom, calls=%begin
  %busy = bf16[8,16]{1,0} fusion(%y), kind=kOutput, calls=%meanwhile
  %ended = bf16[8,16]{1,0} fusion(%y), kind=kCustom, calls=%end
  %apart = ((f32[8,16]{1,0}), f32[4,16]{1,0}, u32[]) async-start(%x), calls=%scattered
  %gathering = (bf16[4,16]{1,0}, bf16[32,16]{1,0}) all-gather-start(%y), dimensions={0}
  %passed = (bf16[4,16]{1,0}, bf16[4,16]{1,0}, u32[], u32[]) collective-permute-start(%y)
  ROOT %result = f32[4,16]{1,0} fusion(%x), kind=kCustom, calls=%outer
}
"""


def test_collectives_inside_fusions_count_once_and_starts_by_their_results_alone():
    assert account(FUSED).collectives == {
        "all-gather bf16": {"runs": 2, "bytes": 2 * 8 * 16 + 2 * 32 * 16},
        "collective-permute bf16": {"runs": 1, "bytes": 2 * 4 * 16},
        "reduce-scatter f32": {"runs": 2, "bytes": 2 * 4 * 4 * 16},
    }


def test_a_program_of_this_machine_is_read():
    """A loop of 5 products, each of which reads and writes 3 matrices at least."""
    matrix = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    program = jax.jit(lambda a: jax.lax.scan(lambda x, _: (jnp.sin(x @ a), None), a, length=5)[0])
    found = account(program.lower(matrix).compile().as_text())
    assert found.traffic >= 5 * 3 * 64 * 64 * 4
    assert found.largest_float32 == "f32[64,64]"


@pytest.mark.parametrize(
    ("program", "shapes", "operations"),
    [
        (lambda a, b: a @ b, [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        (lambda a, b: jnp.einsum("bij,bkj->bik", a, b), [(2, 3, 5), (2, 4, 5)], 2 * 2 * 3 * 4 * 5),
        (lambda a: jax.lax.scan(lambda x, _: (x @ x, None), a, length=6)[0], [(3, 3)], 6 * 2 * 27),
        (lambda a: jax.lax.platform_dependent(a, cpu=lambda a: a, default=lambda a: a @ a), [(3, 3)], 2 * 27),
        (jax.checkpoint(lambda a: jax.jit(jnp.matmul)(a, a)), [(3, 3)], 2 * 27),
        (lambda a: jax.jit(lambda a: (a @ a, a @ a @ a))(a)[0], [(3, 3)], 2 * 27),
    ],
    ids=["product", "batched", "loop", "by platform", "nested", "unused"],
)
def test_operations_of_products(program, shapes, operations):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    assert matrix_operations(jax.jit(program).trace(*arguments)) == operations


def test_operations_of_a_convolution():
    """Each of 6 x 6 x 5 outputs sums 3 x 3 x 2 products."""
    image, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 8, 2), (3, 3, 2, 5)))

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert matrix_operations(jax.jit(convolve).trace(image, kernel)) == 2 * 6 * 6 * 5 * 3 * 3 * 2
