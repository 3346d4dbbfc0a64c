"""What V4.1 keeps, in the formats it keeps it in: window keys in FP8, entries and index keys in FP4.

Rounding happens where a value enters a cache, after its rotation, so a pass over a whole text and
step-by-step decoding read the same numbers. Gradients pass straight through.

Source: V4.1-Flash, released inference code.
"""

from torch import Tensor, nn

from workbench.model.v41 import V41Transformer
from workbench.model.v41.csa2 import CSA2, Chooser, EntrySource
from workbench.quant.fake import fake_quantize

WINDOW, ENTRY, INDEX = "fp8_e4m3_1x32_ue8m0", "kv_v41", "mxfp4_v4"


class Stored(nn.Module):
    """Rounds to a format and back: (..., c) -> (..., c)."""

    def __init__(self, fmt: str):
        super().__init__()
        self.fmt = fmt

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantize(x, self.fmt)


def round_stores(model: V41Transformer) -> None:
    """From now on a model rounds what it stores and what its indexers compare.

    Blocks have to divide: head_dim and index_head_dim by 32.
    """
    for module in model.modules():
        if isinstance(module, CSA2):
            module.window_store = Stored(WINDOW)
        elif isinstance(module, EntrySource):
            module.entry_store, module.index_store = Stored(ENTRY), Stored(INDEX)
        elif isinstance(module, Chooser):
            module.index_store = Stored(INDEX)
