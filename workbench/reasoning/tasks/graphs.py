"""Paths in small graphs: look-up in the context again and again, the hardest kind for a small network."""

import random
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from workbench.reasoning.tasks.problem import Solution
from workbench.reasoning.vocabulary import NODES


@dataclass(frozen=True)
class GraphPath:
    """A way from one node to another along one-way edges: `path A C , C F , B A : B F`.

    Any path that follows the edges counts. Thinking writes the nodes that a breadth-first search opens,
    each with what it leads to. The level is the length of the shortest path, in edges.
    """

    edges: int = 8
    levels: tuple[int, ...] = (1, 2, 3)
    name: str = "graph path"

    def draw(self, rng: random.Random, level: int) -> str:
        while True:
            pairs = [(a, b) for a in NODES for b in NODES if a != b]
            edges = rng.sample(pairs, self.edges)
            start, goal = rng.sample(NODES, 2)
            path = _shortest(edges, start, goal)
            if path is not None and len(path) == level + 1:
                return f"path {' , '.join(f'{a} {b}' for a, b in edges)} : {start} {goal}"

    def _given(self, question: str) -> tuple[list[tuple[str, str]], str, str]:
        edges, ends = question.removeprefix("path ").split(" : ")
        start, goal = ends.split()
        return [(edge.split()[0], edge.split()[1]) for edge in edges.split(" , ")], start, goal

    def solve(self, question: str, rng: random.Random) -> Solution:
        edges, start, goal = self._given(question)
        seen, queue, steps = {start}, deque([start]), []
        while goal not in seen:
            node = queue.popleft()
            nexts = [b for a, b in edges if a == node and b not in seen]
            steps.append(" ".join([node, ">", *nexts]))
            seen.update(nexts)
            queue.extend(nexts)
        path = _shortest(edges, start, goal)
        assert path is not None
        return Solution(" ; ".join(steps), " ".join(path))

    def verify(self, question: str, answer: str) -> bool:
        edges, start, goal = self._given(question)
        nodes = answer.split()
        if len(nodes) < 2 or nodes[0] != start or nodes[-1] != goal:
            return False
        return all(edge in edges for edge in pairwise(nodes))

    def key(self, question: str) -> str:
        """The order in which edges are listed does not matter."""
        edges, start, goal = self._given(question)
        return f"{sorted(edges)} {start} {goal}"


def _shortest(edges: list[tuple[str, str]], start: str, goal: str) -> list[str] | None:
    came_from: dict[str, str | None] = {start: None}
    queue = deque([start])
    while queue and goal not in came_from:
        node = queue.popleft()
        for a, b in edges:
            if a == node and b not in came_from:
                came_from[b] = a
                queue.append(b)
    if goal not in came_from:
        return None
    path: list[str] = []
    at: str | None = goal
    while at is not None:
        path.append(at)
        at = came_from[at]
    return path[::-1]
