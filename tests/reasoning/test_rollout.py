"""Rollouts: drawn from the policy's own distribution, scored as training scores them, killed and resumed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.oracles.random_v4 import logprobs_by_full_pass
from workbench.model import Sampling
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.rollout import Rollouts, sample
from workbench.reasoning.scoring import sampled_logprobs, token_logprobs
from workbench.reasoning.write_ahead import WriteAheadLog

PROMPTS = [[1, 40, 41, 42, 3], [1, 50, 3], [1, 44, 45, 46, 47, 48, 49, 3, 60]]


@pytest.fixture(scope="module")
def policy():
    return new_policy(0, policy_config(initializer_range=0.2)).eval()


@pytest.fixture(scope="module")
def rollouts(policy) -> Rollouts:
    return sample(policy, PROMPTS, 5, 30, seed=3)


def test_the_answers_are_of_different_lengths_so_that_the_other_tests_mean_something(rollouts):
    lengths = {len(row) for row in rollouts.tokens}
    assert len(lengths) > 3 and any(rollouts.stopped) and not all(rollouts.stopped)


def test_a_group_shares_its_prompt_and_matches_a_pass_over_everything(policy, rollouts):
    for row, tokens in enumerate(rollouts.tokens):
        expected = logprobs_by_full_pass(policy, PROMPTS[row // 5], tokens)
        torch.testing.assert_close(torch.tensor(rollouts.logprobs[row]), expected, rtol=0, atol=2e-5)


def test_tokens_are_drawn_as_the_uniform_numbers_say(policy, rollouts):
    """Row 7 by hand: a full pass a token, and the row's own random numbers."""
    source = torch.Generator().manual_seed(3)
    seeds = [int(torch.randint(2**62, (), generator=source)) for _ in range(8)]
    uniforms = torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(seeds[7]))
    ids = list(PROMPTS[1])
    for uniform in uniforms[: len(rollouts.tokens[7])]:
        with torch.no_grad():
            p = policy(torch.tensor([ids]))[0, -1].softmax(dim=-1).double()
        ids.append(int((p.cumsum(0) <= uniform * p.sum()).sum()))
    assert ids[len(PROMPTS[1]) :] == rollouts.tokens[7]


def test_a_rows_answer_does_not_depend_on_other_prompts(policy, rollouts):
    alone = sample(policy, PROMPTS[:1], 5, 30, seed=3)
    assert alone.tokens == rollouts.tokens[:5]


def test_the_training_forward_gives_the_samplers_probabilities_in_any_batch(policy, rollouts):
    rows = [11, 2, 7, 14]
    scored = token_logprobs(policy, rollouts, rows)
    own = sampled_logprobs(rollouts, rows, policy.device)
    assert scored.mask.sum(dim=1).tolist() == [len(rollouts.tokens[row]) for row in rows]
    torch.testing.assert_close(scored.logprobs, own, rtol=0, atol=2e-5)
    again = token_logprobs(policy, rollouts, rows)
    assert torch.equal(scored.logprobs, again.logprobs)  # the ratio of a first update is exactly 1
    with torch.no_grad():
        assert torch.equal(token_logprobs(policy, rollouts, rows).logprobs, again.logprobs)


@pytest.mark.parametrize("keep_routes", [False, True])
def test_gradients_are_the_same_whether_a_prompt_is_read_once_or_with_every_answer(keep_routes):
    """Prompts within and beyond the window of 32, answers from one token to 25, four rows a group."""
    policy = new_policy(0, policy_config(initializer_range=0.2))
    prompts = [PROMPTS[1], PROMPTS[2], [1, *range(10, 80), 3]]
    drawn = sample(policy, prompts, 4, 25, seed=5, stop_tokens=range(40), keep_routes=keep_routes)
    assert min(map(len, drawn.tokens)) == 1 and max(map(len, drawn.tokens)) > 16
    rows = [9, 0, 4, 1, 11, 6, 10]
    weight = torch.randn(len(rows), 25, generator=torch.Generator().manual_seed(1))

    def read(row_groups: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        policy.zero_grad()
        found = torch.zeros(len(rows), 25)
        for group in row_groups:
            scored = token_logprobs(policy, drawn, group)
            width, places = scored.logprobs.shape[1], [rows.index(row) for row in group]
            (scored.logprobs * weight[places, :width]).sum().backward()
            found[places, :width] = scored.logprobs.detach()
        return found, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    once, gradient = read([rows])
    alone, expected = read([[row] for row in rows])
    torch.testing.assert_close(once, alone, rtol=0, atol=2e-5)
    assert (gradient - expected).norm() < 1e-5 * expected.norm()


def test_entropy_is_that_of_the_distribution(policy, rollouts):
    scored = token_logprobs(policy, rollouts, [0])
    with torch.no_grad():
        logits = policy(torch.tensor([PROMPTS[0] + rollouts.tokens[0]]))[0, len(PROMPTS[0]) - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(scored.entropy[0], expected, rtol=0, atol=1e-4)


def test_filtered_sampling_is_scored_on_the_words_that_were_left(policy):
    filtered = sample(policy, PROMPTS, 3, 12, seed=1, sampling=Sampling(1.3, top_p=0.7))
    assert filtered.kept is not None and all(int(kept.sum(dim=1).max()) < 164 for kept in filtered.kept)
    scored = token_logprobs(policy, filtered)
    own = sampled_logprobs(filtered, range(9), policy.device)
    torch.testing.assert_close(scored.logprobs, own, rtol=0, atol=3e-5)
    unmasked = token_logprobs(policy, sample(policy, PROMPTS, 3, 12, seed=1, sampling=Sampling(1.3)))
    assert (unmasked.logprobs.sum() - own.sum()).abs() > 0.1


def test_routes_are_those_of_the_sampler_and_replaying_them_holds_under_other_weights(policy):
    rollouts = sample(policy, PROMPTS, 2, 10, seed=2, keep_routes=True)
    assert rollouts.routes is not None
    for row, routes in enumerate(rollouts.routes):
        assert routes.shape == (len(rollouts.prompt(row)) + len(rollouts.tokens[row]) - 1, 3, 2)
    replay = token_logprobs(policy, rollouts)
    torch.testing.assert_close(replay.logprobs, token_logprobs(policy, rollouts, replays=False).logprobs)
    other = new_policy(0, policy_config(initializer_range=0.2))
    with torch.no_grad():
        for layer in other.model.layers[1:]:
            layer.mlp.gate.e_score_correction_bias.copy_(torch.tensor([5.0, -5.0, 5.0, -5.0]))
    assert not torch.allclose(
        token_logprobs(other, rollouts, replays=False).logprobs, replay.logprobs, atol=1e-3
    )
    torch.testing.assert_close(token_logprobs(other, rollouts).logprobs, replay.logprobs)


def test_a_cut_log_at_any_byte_gives_the_same_tokens(policy, rollouts, tmp_path):
    path = tmp_path / "log"
    whole = sample(policy, PROMPTS, 5, 30, seed=3, log=path)
    assert whole.tokens == rollouts.tokens
    content = path.read_bytes()
    for cut in (0, 11, 400, 401, 2 * len(content) // 3, len(content) - 1, len(content)):
        path.write_bytes(content[:cut])
        resumed = sample(policy, PROMPTS, 5, 30, seed=3, log=path)
        assert resumed.tokens == whole.tokens and resumed.stopped == whole.stopped
        torch.testing.assert_close(
            sampled_logprobs(resumed, range(15), policy.device),
            sampled_logprobs(whole, range(15), policy.device),
            rtol=0,
            atol=2e-5,
        )


def test_a_flipped_bit_ends_what_is_believed(policy, tmp_path):
    path = tmp_path / "log"
    with WriteAheadLog(path, 2, {}) as log:
        log.append([0, 1], [7, 8], [-0.5, -1.5])
        log.append([0], [9], [-2.5])
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with WriteAheadLog(path, 2, {}) as log:
        assert log.tokens == [[7], [8]] and log.logprobs == [[-0.5], [-1.5]]


def test_a_log_of_another_rollout_is_refused(policy, tmp_path):
    sample(policy, PROMPTS, 2, 3, seed=0, log=tmp_path / "log")
    with pytest.raises(ValueError, match="of another rollout"):
        sample(policy, PROMPTS, 2, 3, seed=1, log=tmp_path / "log")
    with pytest.raises(ValueError, match="of another rollout"):
        sample(new_policy(1, policy.config), PROMPTS, 2, 3, seed=0, log=tmp_path / "log")
    with pytest.raises(ValueError, match="not both"):
        sample(policy, PROMPTS, 2, 3, log=tmp_path / "other", keep_routes=True)


PROGRAM = """
import sys
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.rollout import sample
policy = new_policy(0, policy_config(initializer_range=0.2)).eval()
prompts = [[1, 40 + i, 3] for i in range(64)]
print(sample(policy, prompts, 8, 60, seed=5, log=sys.argv[1], stop_tokens=[]).tokens)
"""


def test_killed_for_real_and_resumed_it_draws_the_same(tmp_path):
    def run(path: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True)

    whole, _ = run(tmp_path / "whole").communicate()
    child, log = run(tmp_path / "cut"), tmp_path / "cut"
    while not (log.exists() and log.stat().st_size > 100_000):
        assert child.poll() is None, "the rollout ended before it could be killed"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert 100_000 < log.stat().st_size < (tmp_path / "whole").stat().st_size
    resumed, _ = run(log).communicate()
    assert resumed == whole


def test_a_shift_changes_what_is_drawn_and_is_in_the_probabilities(policy):
    """A shift that allows one word for each last word: the answer is that chain, of probability one."""
    from workbench.model import Transformer

    assert isinstance(policy, Transformer)
    seen: list[list[list[int]]] = []

    def follow(texts):
        seen.append([list(text) for text in texts])
        allowed = torch.full((len(texts), policy.v4.vocab_size), -1e9)
        for row, text in enumerate(texts):
            allowed[row, (text[-1] + 1) % 50 + 20] = 0.0
        return allowed

    found = sample(policy, [[1, 20], [1, 30, 31]], 2, 3, shift=follow, stop_tokens=[])
    assert found.tokens == [[41, 62, 33]] * 2 + [[52, 23, 44]] * 2
    assert all(logprob == 0 for row in found.logprobs for logprob in row)
    assert seen[1][0] == [1, 20, 41] and seen[1][3] == [1, 30, 31, 52]
    with pytest.raises(ValueError, match="not both"):
        sample(policy, [[1]], 1, 2, shift=follow, log="nowhere")
