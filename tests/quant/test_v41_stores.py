"""V4.1's caches in their formats: on the grid, the same read in pieces, and trainable."""

import torch

from workbench.model.v41 import V41Transformer, load_v41
from workbench.quant import FORMATS
from workbench.quant.v41_stores import ENTRY, INDEX, WINDOW, round_stores


def test_what_a_cache_holds_lies_on_its_formats_grid_and_decoding_reads_the_same():
    generator = torch.Generator().manual_seed(0)
    model = V41Transformer(load_v41("tiny-v4.1").replace(initializer_range=0.2), generator=generator)
    ids = torch.randint(60, (1, 24), generator=generator)
    with torch.no_grad():
        exact = model(ids)
        round_stores(model)
        rounded = model(ids)
        cache = model.new_cache(1, 24)
        pieces = [model.read(part, cache, replay=24)[0] for part in ids.split([17, 1, 6], dim=1)]
    assert (rounded - exact).abs().max() > 1e-4
    torch.testing.assert_close(torch.cat(pieces, dim=1), rounded, rtol=1e-4, atol=1e-4)
    owner = cache.encoder.layers[1]
    assert owner.compressed is not None and owner.index is not None
    for held, fmt in ((owner.window, WINDOW), (owner.compressed.pool, ENTRY), (owner.index.pool, INDEX)):
        assert held.abs().max() > 0
        assert torch.equal(FORMATS[fmt].quantize(held).dequantize(), held)


def test_gradients_pass_through():
    model = V41Transformer(load_v41("tiny-v4.1"), generator=torch.Generator().manual_seed(0))
    round_stores(model)
    model.loss(torch.arange(20)[None]).backward()
    source = model.model.layers[1].self_attn.source
    assert source.kv_proj.weight.grad.any()
