"""Where a graph of calls can be bypassed: branches and single-entry single-exit regions.

Knows no framework: nodes are numbers in an order in which they can run. Node b *post-dominates* a
where every path from a to an output leads through b, and a *dominates* b where every path from an
input to b leads through a. Both are trees, found in one sweep: the parent of a node is the lowest
common ancestor of its predecessors, which jump pointers find in O(log n) (Myers, "An applicative
random-access stack", 1983). What is exclusive to a node is then a subtree, and a region between a
and b is what a dominates less what b dominates (the program structure tree of Johnson, Pearson &
Pingali, PLDI 1994). The whole costs O((nodes + edges) log nodes).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

ROOT = -1
OUTSIDE = -2
# Longest unit that is looked for in a run of regions that repeats itself.
_LONGEST_PERIOD = 8


class DominatorTree:
    """Immediate dominators of a graph without cycles.

    Args:
        predecessors: Per node, the nodes it comes from; all have smaller numbers. A node without
            any hangs from the root, unless it is `outside`.
        outside: Nodes that are left out, as if they and their edges were not there.

    Example:
        A diamond 0 -> 1, 2 -> 3: node 0 dominates all, 1 and 2 dominate nothing.

        >>> tree = DominatorTree([[], [0], [0], [1, 2]])
        >>> tree.parent, tree.dominates(0, 3), tree.dominates(1, 3)
        ([-1, 0, 0, 0], True, False)
    """

    def __init__(
        self, predecessors: Sequence[Sequence[int]], outside: Sequence[bool] | None = None
    ) -> None:
        size = len(predecessors)
        self.parent = [OUTSIDE] * size
        self._depth = [0] * size
        self._jump = [ROOT] * size
        for node, before in enumerate(predecessors):
            if outside is not None and outside[node]:
                continue
            inside = [other for other in before if self.parent[other] != OUTSIDE]
            self._hang(node, self.common(inside))
        self._number()

    def _hang(self, node: int, parent: int) -> None:
        self.parent[node] = parent
        if parent == ROOT:
            return
        self._depth[node] = self._depth[parent] + 1
        jump = self._jump[parent]
        # Skip as far as the last two skips together where those are equal: O(log n) to any depth.
        near = self._height(parent) - self._height(jump)
        far = self._height(jump) - self._height(self._jump[jump] if jump != ROOT else ROOT)
        self._jump[node] = self._jump[jump] if jump != ROOT and near == far else parent

    def _height(self, node: int) -> int:
        return 0 if node == ROOT else self._depth[node] + 1

    def common(self, nodes: Sequence[int]) -> int:
        """The nearest node that dominates all of these; ROOT where there is none."""
        if not nodes:
            return ROOT
        common = nodes[0]
        for node in nodes[1:]:
            common = self._lowest(common, node)
        return common

    def _lowest(self, one: int, two: int) -> int:
        """Lowest common ancestor."""
        if self._height(one) < self._height(two):
            one, two = two, one
        while self._height(one) > self._height(two):
            jump = self._jump[one]
            one = jump if self._height(jump) >= self._height(two) else self.parent[one]
        while one != two:
            jumps = self._jump[one], self._jump[two]
            one, two = jumps if jumps[0] != jumps[1] else (self.parent[one], self.parent[two])
        return one

    def _number(self) -> None:
        """Number nodes so that a subtree is a run; parents have smaller numbers than children."""
        size = len(self.parent)
        weight = [1] * size
        for node in range(size - 1, -1, -1):
            if self.parent[node] >= 0:
                weight[self.parent[node]] += weight[node]
        self._first = [OUTSIDE] * size
        self._last = [OUTSIDE] * size
        free = [0] * size
        top = 0
        order: list[int] = [OUTSIDE] * size
        for node, parent in enumerate(self.parent):
            if parent == OUTSIDE:
                continue
            first = top if parent == ROOT else free[parent]
            if parent == ROOT:
                top += weight[node]
            else:
                free[parent] += weight[node]
            self._first[node], self._last[node] = first, first + weight[node]
            free[node] = first + 1
            order[first] = node
        self._order = order[:top]

    def holds(self, node: int) -> bool:
        """Whether the node was not left out."""
        return self.parent[node] != OUTSIDE

    def dominates(self, one: int, two: int) -> bool:
        """Whether every path from the root to `two` leads through `one`."""
        if not (self.holds(one) and self.holds(two)):
            return False
        return self._first[one] <= self._first[two] < self._last[one]

    def subtree(self, node: int) -> list[int]:
        """What the node dominates, itself included, in order."""
        return sorted(self._order[self._first[node] : self._last[node]])

    def between(self, one: int, two: int) -> list[int]:
        """What `one` dominates and `two`, which it dominates, does not; without `one`."""
        before = self._order[self._first[one] + 1 : self._first[two]]
        return sorted([*before, *self._order[self._last[two] : self._last[one]]])


def dominators(
    predecessors: Sequence[Sequence[int]], outside: Sequence[bool] | None = None
) -> DominatorTree:
    """The dominator tree; see `DominatorTree`."""
    return DominatorTree(predecessors, outside)


class PostDominators:
    """The same from the other end: who leads where only.

    Args:
        successors: Per node, the nodes that read it; all have larger numbers.
        outputs: Nodes that are outputs: others read them, too.

    Example:
        >>> tree = PostDominators([[1, 2], [3], [3], []], outputs=[3])
        >>> tree.parent(0), tree.exclusive(3)
        (3, [0, 1, 2, 3])
    """

    def __init__(self, successors: Sequence[Sequence[int]], outputs: Sequence[int]) -> None:
        self._size = len(successors)
        final = set(outputs)
        # Node 0 of the reversed graph is the world outside, which reads the outputs.
        reversed_order: list[list[int]] = [[]]
        dead = [False]
        for node in range(self._size - 1, -1, -1):
            readers = [self._mirror(reader) for reader in successors[node]]
            alive = [reader for reader in readers if not dead[reader]]
            reversed_order.append([0, *alive] if node in final else alive)
            dead.append(not reversed_order[-1])
        self._tree = DominatorTree(reversed_order, dead)

    def _mirror(self, node: int) -> int:
        return self._size - node

    def parent(self, node: int) -> int:
        """The nearest node that all paths lead through; ROOT where that is an output's reader."""
        above = self._tree.parent[self._mirror(node)]
        return ROOT if above in (0, ROOT, OUTSIDE) else self._mirror(above)

    def exclusive(self, node: int) -> list[int]:
        """Nodes from which every path leads through this one, itself included, in order."""
        if not self._tree.holds(self._mirror(node)):
            return [node]
        return sorted(self._mirror(other) for other in self._tree.subtree(self._mirror(node)))


@dataclass(frozen=True)
class Region:
    """A run of nodes with one way in and one way out.

    Attributes:
        entry: The node that everything comes from.
        exit: The node that everything leads to.
        members: Nodes after the entry up to the exit, in order.
        kind: "layer", or "block" for a larger one.
    """

    entry: int
    exit: int
    members: tuple[int, ...]
    kind: str = "layer"


def chains(tree: DominatorTree, after: PostDominators) -> Iterator[list[int]]:
    """Longest runs of nodes of which each dominates the next, which post-dominates it.

    If the nearest post-dominator of a node is not dominated by it, none further on is: paths that
    avoid the node reach those, too. So each node has one link at most.
    """
    size = len(tree.parent)
    taken = [False] * size
    for start in range(size):
        if taken[start] or not tree.holds(start):
            continue
        chain, node = [start], start
        taken[start] = True
        while True:
            node_after = after.parent(node)
            if node_after == ROOT or taken[node_after] or not tree.dominates(node, node_after):
                break
            chain.append(node_after)
            taken[node_after] = True
            node = node_after
        yield chain


def regions(
    tree: DominatorTree,
    after: PostDominators,
    alike: Sequence[Hashable],
    heavy: Sequence[Hashable],
) -> list[Region]:
    """Find the regions that a node can stand in for as a whole.

    The smallest are taken, side by side along each chain: from a node to the next that is like it,
    with at least one heavy node in between, and light nodes that follow (an activation, a
    normalisation). Where smallest regions repeat in turn (attention, feed-forward, attention, ...)
    each turn is a "block", too; a region with several heavy nodes that is part of no turn is a
    block itself.

    Args:
        tree: Who dominates whom.
        after: Who post-dominates whom.
        alike: Per node, a key that must be equal at entry and exit (shape and dtype of a tensor);
            None for nodes that cannot be either.
        heavy: Per node, what its weights look like; None where it has none.

    Returns:
        Regions in order of their exits.
    """
    found: list[Region] = []
    for chain in chains(tree, after):
        stops = [node for node in chain if alike[node] is not None]
        if len(stops) > 1:
            found += _named(_smallest(tree, stops, alike, heavy), heavy)
    return sorted(found, key=lambda region: (region.exit, region.entry))


def _smallest(
    tree: DominatorTree,
    stops: Sequence[int],
    alike: Sequence[Hashable],
    heavy: Sequence[Hashable],
) -> list[Region]:
    steps = [tree.between(one, two) + [two] for one, two in pairwise(stops)]
    weighs = [any(heavy[node] is not None for node in step) for step in steps]
    last_like: dict[Hashable, int] = {}
    taken: list[tuple[int, int]] = []
    end = 0
    for at, node in enumerate(stops):
        if at and not weighs[at - 1] and taken and taken[-1][1] == at - 1:
            if alike[stops[taken[-1][0]]] == alike[node]:
                taken[-1] = (taken[-1][0], at)
                end = at
        else:
            start = last_like.get(alike[node], -1)
            if start >= end and any(weighs[start:at]):
                taken.append((start, at))
                end = at
        last_like[alike[node]] = at
    return [
        Region(stops[i], stops[j], tuple(node for step in steps[i:j] for node in step))
        for i, j in taken
    ]


def _named(found: list[Region], heavy: Sequence[Hashable]) -> list[Region]:
    """Smallest regions with their kinds, and the larger ones that repeat."""
    result: list[Region] = []
    for run in _adjacent(found):
        shapes = [tuple(h for h in map(heavy.__getitem__, r.members) if h is not None) for r in run]
        start, stop, period = _repeating(shapes)
        for number, region in enumerate(run):
            part = period > 1 and start <= number < stop
            several = len(shapes[number]) > 1 and not part
            kind = "block" if several else "layer"
            result.append(Region(region.entry, region.exit, region.members, kind))
        if period > 1:
            for first in range(start, stop, period):
                turn = run[first : first + period]
                members = tuple(node for region in turn for node in region.members)
                result.append(Region(turn[0].entry, turn[-1].exit, members, "block"))
    return result


def _adjacent(found: list[Region]) -> Iterator[list[Region]]:
    run: list[Region] = []
    for region in found:
        if run and run[-1].exit != region.entry:
            yield run
            run = []
        run.append(region)
    if run:
        yield run


def _repeating(shapes: Sequence[Hashable]) -> tuple[int, int, int]:
    """Longest stretch that repeats with a period, the shortest period of those: start, stop, period."""
    best = (0, 0, 1)
    for period in range(1, min(_LONGEST_PERIOD, len(shapes) // 2) + 1):
        start = 0
        for at in range(len(shapes) + 1):
            inside = at < len(shapes)
            if inside and (at - start < period or shapes[at] == shapes[at - period]):
                continue
            length = (at - start) // period * period
            if length >= 2 * period and length > best[1] - best[0]:
                best = (start, start + length, period)
            start = max(start + 1, at - period + 1)
    return best
