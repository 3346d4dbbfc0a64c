"""The V4.1 network against the equations, and what each token may know."""

import pytest
import torch

from tests.oracles import v41_layer as oracle
from tests.oracles.v4_small import double_weights
from tests.oracles.v41_small import small_config, small_model
from workbench.model.layout import Layout
from workbench.model.v41 import V41Transformer

PICTURE = 60


@pytest.fixture(scope="module")
def model_and_ids():
    model, generator = small_model()
    ids = torch.randint(59, (2, 29), generator=generator)
    ids[1, 9:13] = PICTURE
    return model, ids


def close(a, b, tolerance=2e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_matches_the_written_equations_and_uses_every_mode(model_and_ids):
    model, ids = model_and_ids
    assert set(model.config.modes) == {"window", "full", "reindex", "reuse"}
    pictures = torch.randn(4, 28, generator=torch.Generator().manual_seed(3))
    weights = double_weights(model)
    with torch.no_grad():
        y, targets = model.hidden(ids, pictures=pictures)
        logits = model.lm_head(y)
    for row, own in ((0, None), (1, pictures.double())):
        expected, features = oracle.forward(ids[row].tolist(), weights, model.config, own)
        close(logits[row].double(), expected)
        close(targets[row].double(), features)


@pytest.mark.parametrize("changes", [{"candidate_topk_blocks": 20}, {"index_topk": 2}])
def test_the_pool_and_the_selection_decide_something(model_and_ids, changes):
    model, ids = model_and_ids
    wide = V41Transformer(small_config(**changes))
    wide.load_state_dict(model.state_dict())
    assert float((wide(ids) - model(ids)).detach().abs().max()) > 1e-3


def test_no_token_knows_a_later_one(model_and_ids):
    model, ids = model_and_ids
    with torch.no_grad():
        before = model(ids)
        for place in (1, 14, 28):
            changed = ids.clone()
            changed[:, place] = (changed[:, place] + 1) % 59
            after = model(changed)
            close(after[:, :place], before[:, :place])
            assert (after[:, place] - before[:, place]).abs().max() > 1e-3


def test_a_far_token_is_known_through_entries_alone(model_and_ids):
    """Token 0 is out of every window's reach in one layer; through entries it arrives."""
    model, ids = model_and_ids
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 59
    with torch.no_grad():
        assert (model(changed)[:, -1] - model(ids)[:, -1]).abs().max() > 1e-4


def test_packed_samples_are_read_as_if_alone(model_and_ids):
    model, ids = model_and_ids
    sample_ids = torch.tensor([[0] * 11 + [1] * 18, [0] * 16 + [1] * 3 + [2] * 10])
    with torch.no_grad():
        packed = model(ids, sample_ids=sample_ids)
        for row in range(2):
            for sample in sample_ids[row].unique().tolist():
                own = sample_ids[row] == sample
                close(packed[row, own], model(ids[row : row + 1, own])[0])


@pytest.mark.parametrize("cuts", [(29,), (1,) * 29, (12, 1, 1, 7, 2, 6)])
def test_reading_in_pieces_equals_one_pass(model_and_ids, cuts):
    model, ids = model_and_ids
    cache = model.new_cache(2, 40)
    with torch.no_grad():
        full = model(ids)
        pieces = [model.read(part, cache, replay=29)[0] for part in ids.split(cuts, dim=1)]
    close(torch.cat(pieces, dim=1), full)
    assert cache.length == 29


def test_what_is_rewound_was_never_read(model_and_ids):
    model, ids = model_and_ids
    cache = model.new_cache(2, 40, max_rewind=4)
    model.read(ids[:, :15], cache)
    model.read((ids[:, :4] + 7) % 59, cache)
    cache.rewind(4)
    other = model.new_cache(2, 40)
    model.read(ids[:, :15], other)
    close(model.read(ids[:, 15:20], cache)[0], model.read(ids[:, 15:20], other)[0])


def test_bounded_replay_is_exact_from_the_stated_length_on(model_and_ids):
    """Each decoder layer shortens the exact part by window - 1 tokens: 4 layers of 7 need 25."""
    model, ids = model_and_ids
    window, layers = model.config.sliding_window, model.config.num_hidden_layers // 2
    exact = layers * (window - 1) + 1
    assert exact == 25 < 28

    def last(replay):
        cache = model.new_cache(2, 40)
        logits, _ = model.read(ids[:, :28], cache, replay=replay)
        assert logits.shape[1] == (replay or window)
        following, _ = model.read(ids[:, 28:], cache)
        return torch.cat((logits[:, -1:], following), dim=1)

    with torch.no_grad():
        full = model(ids)[:, -2:]
    close(last(exact), full)
    off = {replay: float((last(replay) - full).abs().max()) for replay in (None, 1)}
    assert 1e-4 < off[None] < off[1]  # as released: an approximation, and better than less


class Replayed(Layout):
    """Positions from `start` on look back on none before it."""

    start = 21

    @property
    def reach(self):
        return torch.where(self.positions < self.start, self.positions, self.positions - self.start)


def test_bounded_replay_is_a_decoder_whose_windows_begin_at_the_replay(model_and_ids):
    """The same by masks alone: all tokens through the decoder, but no window key before the replay."""
    model, ids = model_and_ids
    trunk, n = model.model, 28
    with torch.no_grad():
        carry, tokens = trunk.begin(ids[:, :n])
        plain, cut = (
            kind(trunk.rotary_emb, torch.arange(n)[None], 2, model.config.sliding_window, model.dtype)
            for kind in (Layout, Replayed)
        )
        carry = trunk.run(range(4), carry, tokens, plain)
        expected = model.lm_head(trunk.collapse(trunk.run(range(4, 8), carry, tokens, cut)))
        logits, _ = model.read(ids[:, :n], model.new_cache(2, n))
    close(logits, expected[:, Replayed.start :])


def test_one_decoder_layer_is_replayed_exactly_in_one_window():
    changes = dict(
        num_hidden_layers=2,
        compress_ratios=(2, 1, 0, 0),
        kv_source_layer_ids=(0, 1),
        index_source_layer_ids=(0, 1),
        candidate_source_layer_id=1,
        engram_layer_ids=(0,),
        dspark_target_layer_ids=(1, 1),
    )
    model, generator = small_model(5, **changes)
    ids = torch.randint(59, (1, 24), generator=generator)
    with torch.no_grad():
        close(model.read(ids, model.new_cache(1, 24))[0][:, -1], model(ids)[:, -1])


def test_training_reaches_every_weight_but_the_indexers_and_the_draft(model_and_ids):
    model, ids = model_and_ids
    model.zero_grad()
    model.loss(ids).backward()
    untouched = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    expected = {
        name
        for name, _ in model.named_parameters()
        if ".chooser." in name or ".index_k_" in name or name.startswith("mtp.")
    }
    assert untouched == expected
    model.zero_grad()


def test_loss_is_the_mean_of_next_token_surprises(model_and_ids):
    model, ids = model_and_ids
    with torch.no_grad():
        logp = model(ids)[:, :-1].double().log_softmax(-1)
        expected = -logp.gather(-1, ids[:, 1:, None]).mean()
        close(model.loss(ids).double(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, ids: m(ids + 1000), "token ids from"),
        (lambda m, ids: m.read(ids, m.new_cache(1, 40)), r"got 2 rows; it holds batch_size=1"),
        (lambda m, ids: m.read(ids, m.new_cache(2, 4)), r"29 more tokens after 0; it holds max_tokens=4"),
        (lambda m, ids: m.read(ids, m.new_cache(2, 40), replay=0), "replay is 0; the last token needs 1"),
        (lambda m, ids: m.new_cache(2, 5000), "max_tokens=5000; max_position_embeddings=4096"),
        (
            lambda m, ids: V41Transformer(m.config, vocabulary=["a"]),
            "vocabulary has 1 texts; vocab_size is 61",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(model_and_ids, call, message):
    with pytest.raises(ValueError, match=message):
        call(*model_and_ids)
