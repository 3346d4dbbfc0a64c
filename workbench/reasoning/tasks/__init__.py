"""Tasks with checkable answers, in which working in steps helps."""

from workbench.reasoning.tasks.arithmetic import Addition, ModularChain, Parity
from workbench.reasoning.tasks.graphs import GraphPath
from workbench.reasoning.tasks.judging import Judging, judgements
from workbench.reasoning.tasks.lists import ProgramRun, ProgramSearch, Sorting
from workbench.reasoning.tasks.problem import Family, Problem, Solution, draw_problems, leaked
from workbench.reasoning.tasks.search import Countdown, Division

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Addition(),
        ModularChain(),
        Parity(),
        Division(),
        Countdown(),
        Sorting(),
        GraphPath(),
        ProgramRun(),
        ProgramSearch(),
    )
}
"""One family of each kind, by name."""

__all__ = [
    "FAMILIES",
    "Addition",
    "Countdown",
    "Division",
    "Family",
    "GraphPath",
    "Judging",
    "ModularChain",
    "Parity",
    "Problem",
    "ProgramRun",
    "ProgramSearch",
    "Solution",
    "Sorting",
    "draw_problems",
    "judgements",
    "leaked",
]
