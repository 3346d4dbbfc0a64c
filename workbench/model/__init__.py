"""DeepSeek-V4 in PyTorch: exact against the released code, linear in context; V3, V3.2, V4.1 beside it."""

from workbench.model.cache import Cache
from workbench.model.checkpoint import from_pretrained, inspect, save_pretrained, tensors
from workbench.model.instruments import observe
from workbench.model.latent.transformer import LatentTransformer
from workbench.model.sampling import Sampling
from workbench.model.speculative import generate_speculative
from workbench.model.transformer import Transformer
from workbench.model.v41 import V41Transformer, load_v41

__all__ = [
    "Cache",
    "LatentTransformer",
    "Sampling",
    "Transformer",
    "V41Transformer",
    "from_pretrained",
    "generate_speculative",
    "inspect",
    "load_v41",
    "observe",
    "save_pretrained",
    "tensors",
]
