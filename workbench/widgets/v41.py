"""An explorer of V4.1's memory: which rows a typed text asks for."""

import re

import ipywidgets
import plotly.graph_objects as go
import torch

from workbench.model.v41 import load_v41
from workbench.model.v41.ngrams import compressed_ids, look_back, multipliers, table_primes, table_rows
from workbench.plots.v41 import lookup_figure
from workbench.widgets.explorer import Explorer

EXAMPLE = "The Rhine is long. the rhine is"
MOST_TOKENS = 12


def lookups(text: str, layer: int) -> tuple[list[str], list[dict[str, int]]]:
    """The text's tokens, and the row of the first head of each order that every token asks for.

    Words and signs stand for tokens: the release's own vocabulary is not at hand. Tables and hash are the
    release's.

    Raises:
        ValueError: no token, or a layer without a memory.
    """
    config = load_v41()
    tokens = re.findall(r"\w+|[^\w\s]", text)[:MOST_TOKENS]
    if not tokens or layer not in config.engram_layer_ids:
        raise ValueError(
            f"lookups: got {len(tokens)} tokens and layer {layer}; it needs a word or more and one of layers "
            f"{list(config.engram_layer_ids)}; type a text"
        )
    # Ids from 3 on: 0 to 2 are special ones, 2 the pad that stands before a text.
    ids = torch.tensor([[i + 3 for i in compressed_ids(tokens)]])
    primes = torch.tensor(table_primes(config)[config.engram_layer_ids.index(layer)])
    factors = torch.tensor(multipliers(config, layer))
    ngrams = look_back(ids, config.engram_max_ngram_size, config.engram_pad_id)
    rows = table_rows(ngrams, factors, primes)[0, :, :, 0].tolist()
    cells = [
        {"token": t, "order": n + 2, "row": row, "first": [other[n] for other in rows].index(row)}
        for t, own in enumerate(rows)
        for n, row in enumerate(own)
    ]
    return tokens, cells


def memory_figure(text: str, layer: int) -> go.Figure:
    """What the memory of a layer is asked for by a text."""
    tokens, cells = lookups(text, layer)
    return lookup_figure(cells, tokens)


def memory_explorer(picture: str | None = None) -> Explorer:
    """A text × the layer whose memory is asked."""
    controls = {
        "text": ipywidgets.Text(value=EXAMPLE, layout={"width": "480px"}, continuous_update=False),
        "layer": ipywidgets.Dropdown(options=list(load_v41().engram_layer_ids)),
    }
    return Explorer(memory_figure, controls, picture=picture, title="Rows of the memory")
