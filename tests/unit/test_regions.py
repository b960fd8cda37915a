"""Dominators against brute force, and regions of graphs made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.regions import ROOT, PostDominators, dominators, regions


@st.composite
def dags(draw):
    size = draw(st.integers(1, 14))
    return [
        sorted(draw(st.sets(st.integers(0, node - 1), max_size=3))) if node else []
        for node in range(size)
    ]


def reachable(starts, edges, without):
    seen, stack = set(), [node for node in starts if node != without]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [other for other in edges[node] if other != without]
    return seen


def flipped(predecessors):
    successors = [[] for _ in predecessors]
    for node, before in enumerate(predecessors):
        for other in before:
            successors[other].append(node)
    return successors


@given(dags())
def test_dominates_is_what_removing_the_node_cuts_off(predecessors):
    tree = dominators(predecessors)
    starts = [node for node, before in enumerate(predecessors) if not before]
    successors = flipped(predecessors)
    for one in range(len(predecessors)):
        left = reachable(starts, successors, one)
        for two in range(len(predecessors)):
            assert tree.dominates(one, two) == (two not in left)
        assert tree.subtree(one) == [n for n in range(len(predecessors)) if n not in left]


@given(dags(), st.data())
def test_exclusive_is_what_reaches_an_output_through_the_node_only(predecessors, data):
    size = len(predecessors)
    outputs = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=3)))
    alive = reachable(outputs, predecessors, None)
    after = PostDominators(flipped(predecessors), outputs)
    for node in alive:
        left = reachable(outputs, predecessors, node)
        assert after.exclusive(node) == sorted(alive - left)


@given(dags())
def test_what_is_left_out_is_as_if_it_were_not_there(predecessors):
    outside = [node % 3 == 1 for node in range(len(predecessors))]
    left = [n for n in range(len(predecessors)) if not outside[n]]
    number = {node: i for i, node in enumerate(left)}
    smaller = dominators([[number[b] for b in predecessors[n] if b in number] for n in left])
    tree = dominators(predecessors, outside)
    for one in range(len(predecessors)):
        for two in range(len(predecessors)):
            inside = one in number and two in number
            expected = inside and smaller.dominates(number[one], number[two])
            assert tree.dominates(one, two) == expected


def test_a_long_chain_with_long_skips():
    """The last node reads every one; walking up step by step would be quadratic."""
    size = 20_000
    predecessors = [[], *([node - 1] for node in range(1, size)), list(range(size))]
    tree = dominators(predecessors)
    assert tree.parent[size] == 0
    assert tree.common([size - 1, size // 2]) == size // 2
    assert tree.common([]) == ROOT


def found(predecessors, alike, heavy, outputs=None):
    outputs = outputs or [len(predecessors) - 1]
    after = PostDominators(flipped(predecessors), outputs)
    result = regions(dominators(predecessors), after, alike, heavy)
    return [(region.entry, region.exit, region.kind) for region in result]


def chain(*parts):
    """A chain of tensors (shapes) and calls (weights, lower case): nodes in turn."""
    predecessors = [[node - 1] if node else [] for node in range(len(parts))]
    alike = [part if part.isupper() or part.isdigit() else None for part in parts]
    heavy = [part if part.islower() and part != "-" else None for part in parts]
    return predecessors, alike, heavy


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("AdA", [(0, 2, "layer")]),
        ("AdB", []),
        ("A-A", []),
        ("AdA-A-B", [(0, 4, "layer")]),
        ("AdAdA", [(0, 2, "layer"), (2, 4, "layer")]),
        ("AdBeA", [(0, 4, "block")]),
        ("AdBeAdBeA", [(0, 4, "block"), (4, 8, "block")]),
        ("AdBdBdA", [(2, 4, "layer")]),
        (
            "AdAeAdAeA",
            [
                (0, 2, "layer"),
                (0, 4, "block"),
                (2, 4, "layer"),
                (4, 6, "layer"),
                (4, 8, "block"),
                (6, 8, "layer"),
            ],
        ),
    ],
)
def test_regions_of_chains(parts, expected):
    assert sorted(found(*chain(*parts))) == expected


def test_a_residual_block_is_one_region_and_its_inside_another():
    # 0 x -> 1 call -> 2 y -> 3 call -> 4 y -> 5 add(x, y) -> 6 x
    predecessors = [[], [0], [1], [2], [3], [0, 4], [5]]
    alike = ["X", None, "Y", None, "Y", None, "X"]
    heavy = [None, "a", None, "b", None, None, None]
    assert found(predecessors, alike, heavy) == [(2, 4, "layer"), (0, 6, "block")]


def test_what_is_read_from_outside_is_no_region():
    # As a chain, but the middle is an output of the model too.
    predecessors, alike, heavy = chain(*"AdBeA")
    assert found(predecessors, alike, heavy, outputs=[2, 4]) == []
    # Or something comes in from the side.
    predecessors = [[], [], [0], [2], [1, 3], [4]]
    alike = ["A", "B", None, "B", None, "A"]
    heavy = [None, None, "d", None, "d", None]
    assert found(predecessors, alike, heavy) == []
