"""On a CUDA device: the same numbers as on the CPU, in one pass, cached, in training and in bf16."""

import pytest
import torch

import workbench as wb
from workbench.model import Transformer, from_pretrained, save_pretrained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none"),
]


@pytest.fixture(autouse=True)
def exact_products():
    """fp32 products in fp32: TF32 keeps ten bits."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = allowed


@pytest.fixture
def pair() -> tuple[Transformer, Transformer, torch.Tensor]:
    config = wb.load_config("tiny")
    here = Transformer(config, generator=torch.Generator().manual_seed(1)).eval()
    there = Transformer(config).eval()
    there.load_state_dict(here.state_dict())
    ids = torch.randint(config.vocab_size, (2, 90), generator=torch.Generator().manual_seed(2))
    return here, there.to("cuda"), ids


@torch.no_grad()
def test_logits_are_those_of_the_cpu(pair):
    here, there, ids = pair
    torch.testing.assert_close(there(ids.cuda()).cpu(), here(ids), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_cached_pass_gives_the_logits_of_a_whole_one(pair):
    _, there, ids = pair
    cache = there.new_cache(2, 90)
    pieces = [there(piece, cache=cache) for piece in ids.cuda().split([50, 7] + [1] * 33, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), there(ids.cuda()), rtol=0, atol=1e-4)


@torch.no_grad()
def test_padded_and_packed_rows(pair):
    here, there, ids = pair
    mask = torch.ones_like(ids)
    mask[0, :30] = 0
    samples = (torch.arange(90) // 40).expand(2, -1)
    for masks in ({"attention_mask": mask}, {"sample_ids": samples}):
        on_device = {name: value.cuda() for name, value in masks.items()}
        ours, wanted = there(ids.cuda(), **on_device).cpu(), here(ids, **masks)
        kept = mask.bool() if "attention_mask" in masks else torch.ones_like(mask).bool()
        torch.testing.assert_close(ours[kept], wanted[kept], rtol=0, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_cpu(pair, recompute):
    here, there, ids = pair
    there.recompute_activations = recompute
    here.loss(ids, mtp_weight=0.3).backward()
    there.loss(ids.cuda(), mtp_weight=0.3).backward()
    for (name, mine), other in zip(here.named_parameters(), there.parameters(), strict=True):
        if mine.grad is not None:
            error = (other.grad.cpu() - mine.grad).norm() / mine.grad.norm().clamp(min=1e-12)
            assert error < 1e-3, name


def test_greedy_text_is_that_of_the_cpu(pair):
    here, there, ids = pair
    assert there.generate(ids.cuda(), 12).tokens == here.generate(ids, 12).tokens


@torch.no_grad()
def test_bf16_stays_near_fp32(pair):
    here, there, ids = pair
    exact = here(ids)
    half = there.to(torch.bfloat16)(ids.cuda()).float().cpu()
    assert (half - exact).norm() < 0.1 * exact.norm()


@torch.no_grad()
def test_a_checkpoint_loads_onto_the_device(pair, tmp_path):
    here, _, ids = pair
    save_pretrained(here, tmp_path / "model")
    there = from_pretrained(tmp_path / "model", device="cuda")
    assert there.device.type == "cuda"
    torch.testing.assert_close(there(ids.cuda()).cpu(), here(ids), rtol=0, atol=1e-4)
