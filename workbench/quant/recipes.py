"""Recipes: which products of a network run in which formats, and what its caches hold.

A recipe is a row of a table: one rule for each of the three roles that a product has in a release (see
arithmetic/roles.py). The router, the residual mixing, the embedding and the head are never rounded.

Sources: V3 report (arXiv 2412.19437), section 3.3; V4 report, section 3.4; V4 reference kernels; CANN
operator documents (Ascend); CNRT quantisation parameters (Cambricon).
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from workbench.quant.arithmetic.roles import Role, role_of
from workbench.quant.blocks import BlockFormat
from workbench.quant.formats import format_of
from workbench.quant.quantized import Format


@dataclass(frozen=True)
class Rule:
    """How a product y = x Wᵀ and its two backward products are computed.

    weight: formats that W is rounded to, one after the other. activation: the format of x. gradient: the
    format of what only the backward pass has, dy along n, and dy and x along t. None: as it is. The
    gradient of x reads the same rounded W as the forward pass.
    """

    weight: tuple[str | Format, ...] = ()
    activation: str | Format | None = None
    gradient: str | Format | None = None


NOTHING = Rule()


@dataclass(frozen=True)
class Recipe:
    """What runs in few bits.

    experts, linear, plain: the rule for each role. keep: patterns of modules that stay as they are.
    kv: the format of cached keys and values but for their rotary channels, which become BF16.
    index: the format of the indexer's queries and keys, after a Hadamard rotation. index_scores: the type
    of the scores that entries are chosen by, "bf16" or "fp16".
    """

    name: str
    experts: Rule = NOTHING
    linear: Rule = NOTHING
    plain: Rule = NOTHING
    keep: tuple[str, ...] = ()
    kv: str | Format | None = None
    index: str | Format | None = None
    index_scores: str | None = None

    def rule(self, module_name: str) -> Rule:
        """The rule for a module's products."""
        role: Role | None = role_of(module_name)
        if role is None or any(fnmatchcase(module_name, pattern) for pattern in self.keep):
            return NOTHING
        return {"experts": self.experts, "linear": self.linear, "plain": self.plain}[role]


def fp8_training(name: str, weight: str, tile: str) -> Recipe:
    """All three products of every linear map in FP8, the way V3 trains: the rest in BF16."""
    rule = Rule(weight=(weight,), activation=_cut(tile), gradient=_cut(tile))
    return Recipe(name, experts=rule, linear=rule, plain=BF16)


def experts_in(weight: str, activation: str | None = None) -> Recipe:
    """Only the routed experts: their weights, and on request what they multiply."""
    return Recipe(f"experts in {weight}", experts=Rule((weight,), activation))


def everything_in(name: str, weight: str, activation: str) -> Recipe:
    """Experts and linear maps alike; the rest in BF16."""
    rule = Rule((weight,), activation)
    return Recipe(name, experts=rule, linear=rule, plain=BF16)


def _cut(name: str) -> Format:
    """The format, with a last tile that may be short: an expert's tokens come in no multiple of 128."""
    found = format_of(name)
    return replace(found, cuts_blocks=True) if isinstance(found, BlockFormat) else found


BF16 = Rule(weight=("bf16",), activation="bf16", gradient="bf16")
_KV = _cut("fp8_e4m3_1x64_ue8m0")
_FP8 = Rule(weight=("fp8_e4m3_128x128_ue8m0",), activation=_cut("fp8_e4m3_1x128_ue8m0"))
# An FP4 weight is an FP8 weight too, unless scales of a 128 × 128 block lie more than 2^14 apart: then the
# second rounding changes nothing, and FP8 kernels serve both.
_FP4_IN_FP8 = replace(_FP8, weight=("mxfp4_v4", *_FP8.weight))

_ROWS = (
    Recipe("bf16", BF16, BF16, BF16),
    fp8_training("fp8_v3", "fp8_e4m3_128x128", "fp8_e4m3_1x128"),
    fp8_training("fp8_ue8m0", "fp8_e4m3_128x128_ue8m0", "fp8_e4m3_1x128_ue8m0"),
    # Baselines that are known to fail in large networks.
    fp8_training("fp8_tensor", "fp8_e4m3_tensor", "fp8_e4m3_tensor"),
    fp8_training("fp8_unscaled", "e4m3fn", "e4m3fn"),
    # V4 as it is served before and after FP4: experts, index path and caches.
    Recipe("v4_fp8", _FP8, _FP8, BF16, kv=_KV),
    Recipe("v4_fp4", _FP4_IN_FP8, _FP8, BF16, kv=_KV, index="mxfp4_v4", index_scores="bf16"),
    everything_in("w8a8_ascend", "int8_channel", "int8_token"),
    everything_in("w4a8_ascend", "int4_group32", "int8_token"),
    everything_in("w8a8_mlu", "mlu_int8_pos_scale", "mlu_int8_pos_scale"),
)
RECIPES = {recipe.name: recipe for recipe in _ROWS}
