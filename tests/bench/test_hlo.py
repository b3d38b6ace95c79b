"""Collectives of hand-written programs in XLA's text form: kind, size and number of runs."""

import pytest

from jaxguard.bench import hlo

PROGRAM = """\
HloModule jit_step, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner_body (p: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %p = (s32[], bf16[8,16]{1,0}) parameter(0)
  %gathered = bf16[64,16]{1,0:T(8,128)(2,1)} all-gather(%x), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}, \
metadata={op_name="jit(step)/while/dot"}
  ROOT %t = (s32[], bf16[8,16]{1,0}) tuple(%i, %x)
}

%inner_condition (p.1: (s32[], bf16[8,16])) -> pred[] {
  %most = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i.1, %most), direction=LT
}

%outer_body (p.2: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %loop = (s32[], bf16[8,16]{1,0}) while(%p.2), condition=%inner_condition, body=%inner_body
  %sum.1 = f32[10,4]{1,0} all-reduce(%g), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %t.2 = (s32[], bf16[8,16]{1,0}) tuple(%i, %x)
}

%ring_body (p.8: (bf16[6], u32[])) -> (bf16[6], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %one = u32[]{:T(128)} constant(1)
  %count = u32[]{:T(128)} get-tuple-element(%p.8), index=1
  %sent.1 = (bf16[6]{0}, bf16[6]{0}, u32[], u32[]) collective-permute-start(%z), channel_id=7, \
source_target_pairs={{0,1},{1,0}}
  %next = u32[]{:T(128)} add(%count, %two)
  ROOT %t.9 = (bf16[6]{0}, u32[]{:T(128)}) tuple(%received.1, %next)
}

%ring_condition (p.9: (bf16[6], u32[])) -> pred[] {
  %eight = u32[]{:T(128)} constant(8)
  %count.1 = u32[]{:T(128)} get-tuple-element(%p.9), index=1
  ROOT %less.2 = pred[] compare(%count.1, %eight), direction=LT
}

%outer_condition (p.3: (s32[], bf16[8,16])) -> pred[] {
  ROOT %less.1 = pred[] compare(%i.3, %n), direction=LT
}

%all-reduce-scatter.7 (p.4: f32[80]) -> f32[10] {
  %whole = f32[80]{0} all-reduce(%p.4), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'a','b'}, to_apply=%add
  ROOT %part = f32[10]{0} dynamic-slice(%whole, %place), dynamic_slice_sizes={10}
}

%start (p.5: bf16[2,4]) -> (bf16[2,4], bf16[8,4]) {
  %first = bf16[8,4]{1,0} all-gather(%p.5), channel_id=4, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  ROOT %begun = (bf16[2,4]{1,0}, bf16[8,4]{1,0}) custom-call(%first), custom_call_target="AsyncCollectiveStart"
}

%done (p.6: bf16[2,4]) -> bf16[8,4] {
  %again = bf16[8,4]{1,0} all-gather(%p.6), channel_id=4, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  ROOT %ended = bf16[8,4]{1,0} custom-call(%again), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (q: bf16[8,16]) -> f32[10] {
  %rounds = (s32[], bf16[8,16]{1,0}) while(%q), condition=%outer_condition, body=%outer_body, \
backend_config={"known_trip_count":{"n":"3"}}
  %scattered = f32[10]{0} fusion(%g.2), kind=kCustom, calls=%all-reduce-scatter.7
  %a1 = (bf16[2,4]{1,0}, bf16[8,4]{1,0}) fusion(%y), kind=kCustom, calls=%start
  %a2 = bf16[8,4]{1,0} fusion(%a1), kind=kCustom, calls=%done
  %ring = (bf16[6]{0}, u32[]) while(%q.2), condition=%ring_condition, body=%ring_body
  %sent = (bf16[6]{0}, bf16[6]{0}, u32[], u32[]) collective-permute-start(%z), channel_id=5, \
source_target_pairs={{0,1},{1,0}}
  %received = bf16[6]{0} collective-permute-done(%sent)
  %swapped = (f32[3]{0}, /*index=1*/f32[3]{0}) all-to-all(%u, %v), channel_id=6, replica_groups={{0,1}}
  ROOT %r = f32[10]{0} copy(%scattered)
}
"""


def test_exchanges_are_counted_as_often_as_they_happen():
    found = {one.channel: one for one in hlo.collectives(PROGRAM)}
    times = {channel: (one.kind, one.times) for channel, one in found.items()}
    assert times == {
        "1": ("all-gather", 15),
        "2": ("all-reduce", 3),
        "3": ("reduce-scatter", 1),
        "4": ("all-gather", 1),
        "5": ("collective-permute", 1),
        "6": ("all-to-all", 1),
        "7": ("collective-permute", 4),
    }
    assert found["1"].where == "jit(step)/while/dot"
    assert found["1"].result == 64 * 16 * 2


def test_bytes_are_those_of_rings():
    moved = hlo.moved(hlo.collectives(PROGRAM))
    assert moved["all-gather"] == pytest.approx(15 * 7 / 8 * 2048 + 3 / 4 * 64)
    assert moved["all-reduce"] == pytest.approx(3 * 2 * 3 / 4 * 160)
    assert moved["reduce-scatter"] == pytest.approx(7 / 8 * 320)
    assert moved["collective-permute"] == pytest.approx(5 * (12 + 4))
    assert moved["all-to-all"] == pytest.approx(1 / 2 * 24)


def test_arrays_inside_fusions_are_seen():
    shapes = {(array.dtype, array.shape) for array in hlo.arrays(PROGRAM)}
    assert {("bf16", (64, 16)), ("f32", (80,)), ("pred", ())} <= shapes
    assert hlo.Array("s32", (2, 3)).bytes == 24
