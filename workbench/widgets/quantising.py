"""Explorer of formats on a network's own weights: who errs how much, and on which numbers."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import plotly.graph_objects as go
from torch import Tensor, nn

from workbench.plots.quantising import format_figure
from workbench.quant.arithmetic.roles import role_of
from workbench.quant.fake import fake_quantize
from workbench.quant.hadamard import rotate_blocks
from workbench.quant.instruments import size_histogram, sqnr_db
from workbench.quant.products import sites
from workbench.widgets.explorer import Explorer

FORMAT_NAMES = (
    "bf16", "fp8_e4m3_128x128", "fp8_e4m3_tensor", "mxfp8_e4m3", "mxfp6_e2m3", "hif8", "int8_channel",
    "mlu_int8_pos", "mxfp4_v4", "mxfp4", "nvfp4", "hif4", "int4_group32", "int4_channel",
)  # fmt: skip
ROTATED_BLOCK = 32


def weight_figure(
    weights: Mapping[str, tuple[str, Tensor]], fmt: str, product: str, is_rotated: bool
) -> go.Figure:
    """Every weight rounded to a format; one of them number by number, sizes beside its root mean square.

    weights: by name, the role and the weight. A rotated weight is turned in blocks of 32 before it is
    rounded, and back after.
    """

    def rounded(weight: Tensor) -> Tensor:
        if not is_rotated:
            return fake_quantize(weight, fmt)
        return rotate_blocks(fake_quantize(rotate_blocks(weight, ROTATED_BLOCK), fmt), ROTATED_BLOCK)

    errors = [
        dict(product=name, role=role, sqnr_db=sqnr_db(weight, rounded(weight)))
        for name, (role, weight) in weights.items()
    ]
    weight = weights[product][1]
    rms = weight.square().mean().sqrt()
    sizes = [
        dict(series=series, log2=row["log2_size"], share=row["share"])
        for series, numbers in (("weights", weight), ("errors", rounded(weight) - weight))
        for row in size_histogram(numbers, rms=rms)
    ]
    return format_figure(errors, sizes, product, fmt)


def weight_explorer(model: nn.Module, picture: str | None = None) -> Explorer:
    """Choose a format and a weight of a model; rotate it or not."""
    weights = {
        name: (role, site.weight.detach())
        for name, site in sites(model).items()
        if (role := role_of(site.module_name))
    }
    chosen = next(name for name, (role, _) in weights.items() if role == "experts")
    controls = {
        "fmt": ipywidgets.Dropdown(options=FORMAT_NAMES, value="mxfp4_v4", description="format"),
        "product": ipywidgets.Dropdown(options=list(weights), value=chosen, description="weight"),
        "is_rotated": ipywidgets.Checkbox(value=False, description="rotated by Hadamard"),
    }
    return Explorer(
        lambda **values: weight_figure(weights, **values),
        controls,
        picture=picture,
        title="A format, a weight",
    )
