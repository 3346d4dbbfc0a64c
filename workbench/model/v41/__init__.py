"""DeepSeek-V4.1: shared compressed entries, n-gram memory, a causal encoder-decoder, block drafts."""

from workbench.model.v41.transformer import V41Transformer
from workbench.model.v41.v41_config import V41Config, load_v41

__all__ = ["V41Config", "V41Transformer", "load_v41"]
