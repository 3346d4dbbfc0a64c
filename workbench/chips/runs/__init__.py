"""Training runs: pipelines played out, steps with Muon, faults and goodput, and what makes Ascend hard."""

from workbench.chips.runs.faults import (
    Faults,
    best_interval,
    daly,
    goodput,
    simulate_run,
    slowest,
    useful_share,
    young,
)
from workbench.chips.runs.hardness import days_of, hardness_rows
from workbench.chips.runs.muon import muon_flop, muon_rows, muon_s
from workbench.chips.runs.pipeline import PartTime, Timeline, play
from workbench.chips.runs.sources import difficulties, fault_quantities, load_faults
from workbench.chips.runs.step import RunStep, model_flop_per_token, run_step

__all__ = [
    "Faults",
    "PartTime",
    "RunStep",
    "Timeline",
    "best_interval",
    "daly",
    "days_of",
    "difficulties",
    "fault_quantities",
    "goodput",
    "hardness_rows",
    "load_faults",
    "model_flop_per_token",
    "muon_flop",
    "muon_rows",
    "muon_s",
    "play",
    "run_step",
    "simulate_run",
    "slowest",
    "useful_share",
    "young",
]
