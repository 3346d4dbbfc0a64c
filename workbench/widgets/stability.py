"""An explorer of recorded runs under stress: which way, which seed, where the spikes lie."""

import ipywidgets
import plotly.graph_objects as go

from workbench.plots.stability import spikes_figure
from workbench.training.spikes import SpikeDetector, SpikeRule
from workbench.training.stability_study import SEEDS, STRESSES, WAYS, read_study
from workbench.widgets.explorer import Explorer


def runs_figure(stress: str, against: str, seed: int, window: int, threshold: float) -> go.Figure:
    """V4 as it is and one other way, on the same data; spikes by a rule of one's own."""
    study, runs = read_study(), {}
    for way in dict.fromkeys(("as V4", against)):
        found = study[stress, way, seed]
        detector = SpikeDetector(SpikeRule(window, threshold, 0.1))
        runs[way] = {**found, "is_spike": [detector.note(loss) for loss in found["loss"]]}
    return spikes_figure(runs, f"Loss and outliers, {stress}, seed {seed}")


def stability_explorer(picture: str | None = None) -> Explorer:
    """Stress × way × seed × the rule's window and threshold."""
    select, slider = ipywidgets.Dropdown, ipywidgets.SelectionSlider
    controls = {
        "stress": select(options=STRESSES, value="repeated tokens"),
        "against": select(options=WAYS, value="anticipatory", description="beside V4"),
        "seed": slider(options=SEEDS),
        "window": slider(options=[8, 16, 32], value=16, description="window (steps)"),
        "threshold": slider(options=[2.0, 4.0, 6.0, 10.0], value=6.0, description="spreads above"),
    }
    return Explorer(runs_figure, controls, picture=picture, title="Runs under stress")
