"""Pieces of Janus, Emu3 and Chameleon that transformers has and that are equal to ours."""

import pytest
import torch
from transformers import ClassifierFreeGuidanceLogitsProcessor
from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig
from transformers.models.emu3.modeling_emu3 import Emu3VQVAEVectorQuantizer
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAEVectorQuantizer

from workbench.media.generate import guided
from workbench.media.quantisers import VQ


def test_vq_chooses_and_returns_what_emu3s_does(rand):
    vq, z = VQ(11, 4).eval(), rand(2, 3, 5, 6, 4)
    theirs = Emu3VQVAEVectorQuantizer(Emu3VQVAEConfig(codebook_size=11, embed_dim=4))
    theirs.embedding.weight.data.copy_(vq.table)
    # Theirs has time before channels: (b, t, c, y, x).
    ids = theirs(z.movedim(-1, 2))
    assert torch.equal(vq(z).ids, ids)


def test_vq_is_januss_but_for_its_loss(rand):
    # transformers' loss has 0.25 on the table's term and 1 on the encoder's; the paper has it the other way.
    vq, z = VQ(11, 4).eval(), rand(2, 16, 16, 4)
    theirs = JanusVQVAEVectorQuantizer(JanusVQVAEConfig(num_embeddings=11, embed_dim=4))
    theirs.embedding.weight.data.copy_(vq.table)
    values, _, ids = theirs(z.movedim(-1, 1))
    assert torch.equal(vq(z).ids.flatten(), ids)
    torch.testing.assert_close(vq(z).values, values.movedim(1, -1))


@pytest.mark.parametrize("guidance", [1.5, 5.0])
def test_guidance_is_the_one_janus_draws_with(rand, guidance):
    with_, without = rand(3, 7), rand(3, 7)
    theirs = ClassifierFreeGuidanceLogitsProcessor(guidance)(torch.zeros(3, 1), torch.cat([with_, without]))
    ours = guided(with_, without, guidance)
    # transformers compares log-probabilities, which differ by a constant a row: the distribution is one.
    torch.testing.assert_close(ours.softmax(dim=-1), theirs.softmax(dim=-1))
