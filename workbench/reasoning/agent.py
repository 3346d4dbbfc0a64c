"""A policy with a tool, in V4's own chat format: it writes a call, a sandbox works it out, it goes on.

    tools: calculator    user: 482 + 907
    assistant: <think>ask</think> call of calculator with "482 + 907"     (DSML)
    tool: 1389
    assistant: <think></think>1389

Every turn of the assistant is a rollout of its own: prompts are rendered by the encoder, completions read by
the parser, tokens those of V4's tokenizer trained on such talk. So what the tool says is never learnt
from as if the policy had written it, and reinforcement needs nothing new: all turns of a conversation
share its advantage.

Report: section 5.1 (tables 4, figure 7). Departs: the texts that declare tools are shortened.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from workbench.config import ModelConfig
from workbench.model import Sampling, Transformer
from workbench.model.chat import Message, Prompt, Templates, ToolCall, encode_messages, parse_completion
from workbench.model.tokenizer import Tokenizer
from workbench.reasoning.completions import Document
from workbench.reasoning.experience import Experience
from workbench.reasoning.losses import advantages
from workbench.reasoning.policy import policy_config
from workbench.reasoning.recipe import RLRecipe
from workbench.reasoning.rewards import Score
from workbench.reasoning.rollout import FREE, Rollouts, sample
from workbench.reasoning.sandbox import Sandbox
from workbench.reasoning.tasks.problem import Problem, draw_problems
from workbench.reasoning.tasks.sums import Sum

SHORT = Templates(tools="{tool_schemas}", response_format="{schema}", max_effort="")
CALCULATOR = {"name": "calculator", "parameters": {"expression": "string"}}
ASK, ADD = "ask", "add"  # what it thinks before a call, and before adding in its head
VOCABULARY_SIZE = 346  # all that the words of the format fill
MOST_TURNS = 2
DISPLAY = 4  # the calculator shows so many digits, zeros in front


@cache
def chat_tokenizer() -> Tokenizer:
    """V4's tokenizer with merges learnt from these conversations less their digits: a digit is a token."""
    rng = random.Random(0)
    problems = draw_problems(Sum(), 300, 0)
    pieces = (piece for p in problems for piece in _prompt(demonstrated(p, rng)).pieces)
    texts = (re.sub(r"\d", "", piece.text) for piece in pieces if not piece.is_control)
    return Tokenizer.train(texts, VOCABULARY_SIZE)


def agent_config() -> ModelConfig:
    """The small reasoning policy, with a window that holds a whole conversation."""
    words = chat_tokenizer()
    return policy_config(
        vocab_size=words.vocab_size,
        sliding_window=128,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )


def opening(problem: Problem, has_tool: bool) -> list[Message]:
    """What the policy is asked; the tool is declared or not."""
    return [
        Message(role="system", content="Add.", tools=(CALCULATOR,) if has_tool else ()),
        Message(role="user", content=problem.question),
    ]


def demonstrated(problem: Problem, rng: random.Random) -> list[Message]:
    """A conversation that solves a problem.

    One in three has no tool. Of the others every other one calls it, whatever the sum: nobody shows the
    policy when a call pays.
    """
    answer = problem.solve().answer
    has_tool = rng.random() < 2 / 3
    talk = opening(problem, has_tool)
    if has_tool and rng.random() < 0.5:
        call = ToolCall("calculator", json.dumps({"expression": problem.question}), id="0")
        return [
            *talk,
            Message(role="assistant", reasoning_content=ASK, tool_calls=(call,)),
            Message(role="tool", content=answer, tool_call_id="0"),
            Message(role="assistant", content=answer),
        ]
    return [*talk, Message(role="assistant", reasoning_content=ADD, content=answer)]


def demonstrations(count: int, seed: int) -> list[Document]:
    """Documents to learn from. What the tool says carries no loss."""
    rng, words, found = random.Random(seed), chat_tokenizer(), []
    for problem in draw_problems(Sum(), count, seed):
        talk = demonstrated(problem, rng)
        upto = [len(words.encode_prompt(_prompt(talk[:end]))) for end in range(2, len(talk) + 1)]
        heard = range(upto[1], upto[2]) if len(upto) > 2 else range(0)
        found.append(Document(words.encode_prompt(_prompt(talk)), upto[0], heard))
    return found


@dataclass
class Conversation:
    """A problem talked about: its messages, how much the policy wrote, and its rows in the rollouts."""

    problem: Problem
    messages: list[Message]
    sandbox: Sandbox = field(default_factory=Sandbox)
    tokens: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)
    error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the policy has the word."""
        return self.messages[-1].role != "assistant" and not self.error

    @property
    def calls(self) -> int:
        return len(self.sandbox.log)

    @property
    def is_right(self) -> bool:
        last = self.messages[-1]
        return last.role == "assistant" and not last.tool_calls and self.problem.verify(last.content)

    def take(self, ids: Sequence[int]) -> None:
        """Add what the policy wrote, and the results of its calls; what cannot be read ends it."""
        self.tokens += len(ids)
        try:
            said = parse_completion(chat_tokenizer().decode(ids), "thinking")
            expressions = [_expression(call) for call in said.tool_calls]
        except ValueError as error:
            self.error = str(error)
            return
        numbers = [str(self.calls + i) for i in range(len(expressions))]
        calls = [
            ToolCall(call.name, call.arguments, id=n)
            for call, n in zip(said.tool_calls, numbers, strict=True)
        ]
        self.messages.append(
            Message(
                role="assistant",
                content=said.content,
                reasoning_content=said.reasoning_content,
                tool_calls=tuple(calls),
            )
        )
        for number, expression in zip(numbers, expressions, strict=True):
            result = self.sandbox.execute(int(number), f"calc {expression}").zfill(DISPLAY)
            self.messages.append(Message(role="tool", content=result, tool_call_id=number))


def _expression(call: ToolCall) -> str:
    arguments = json.loads(call.arguments)
    if call.name != "calculator" or list(arguments) != ["expression"]:
        raise ValueError(
            f"agent: got a call of {call.name!r} with {list(arguments)}; the tool is calculator with an "
            f"expression; call that"
        )
    return str(arguments["expression"])


def _prompt(messages: Sequence[Message]) -> Prompt:
    return encode_messages(messages, "thinking", templates=SHORT)


def converse(
    policy: Transformer,
    problems: Sequence[Problem],
    *,
    has_tool: bool = True,
    answers: int = 1,
    max_new_tokens: int = 64,
    sampling: Sampling = FREE,
    seed: int = 0,
) -> tuple[list[Conversation], list[Rollouts]]:
    """Talk about problems, some conversations to each, all side by side; and the rollouts of every turn."""
    talks = [Conversation(p, opening(p, has_tool)) for p in problems for _ in range(answers)]
    drawn: list[Rollouts] = []
    for turn in range(MOST_TURNS):
        open_talks = [talk for talk in talks if talk.is_open]
        if not open_talks:
            break
        group = answers if turn == 0 else 1  # the first turn's prompts are shared
        prompts = [chat_tokenizer().encode_prompt(_prompt(talk.messages)) for talk in open_talks[::group]]
        rollouts = sample(
            policy, prompts, group, max_new_tokens, sampling=sampling, seed=MOST_TURNS * seed + turn
        )
        for row, talk in enumerate(open_talks):
            talk.places.append((turn, row))
            talk.take(rollouts.tokens[row])
        drawn.append(rollouts)
    return talks, drawn


def gather_talks(policy: Transformer, problems: Sequence[Problem], recipe: RLRecipe, seed: int) -> Experience:
    """As `experience.gather`, with the calculator at hand. A score's `thinks` says whether it was called."""
    talks, drawn = converse(
        policy,
        problems,
        answers=recipe.group_size,
        max_new_tokens=recipe.max_new_tokens,
        sampling=recipe.sampling,
        seed=seed,
    )
    rules = recipe.rules
    price = rules.length_weight / (rules.max_tokens or 1)
    scores = [
        Score(
            talk.is_right - price * talk.tokens,
            talk.is_right,
            not talk.error,
            talk.calls > 0,
            1.0,
            talk.tokens,
        )
        for talk in talks
    ]
    rewards = torch.tensor([score.reward for score in scores], device=policy.device)
    advantage = advantages(rewards, recipe.group_size, recipe.loss.scale)
    of_turn = [advantage.new_zeros(len(rollouts)) for rollouts in drawn]
    for talk, own in zip(talks, advantage, strict=True):
        for turn, row in talk.places:
            of_turn[turn][row] = own
    later = [Experience(r, [], a) for r, a in zip(drawn[1:], of_turn[1:], strict=True)]
    return Experience(drawn[0], scores, of_turn[0], later)


def transcript(talk: Conversation) -> list[dict[str, Any]]:
    """A conversation as the policy sees it, a row a message: {"turn", "who", "text", "tokens"}.

    A text holds the control tokens around it, the assistant's opening included.
    """
    rows, before = [], Prompt(())
    for turn in range(1, len(talk.messages) + 1):
        prompt = _prompt(talk.messages[:turn])
        piece = prompt.after(before)
        tokens = len(chat_tokenizer().encode_prompt(prompt)) - len(chat_tokenizer().encode_prompt(before))
        rows.append({"turn": turn, "who": talk.messages[turn - 1].role, "text": piece.text, "tokens": tokens})
        before = prompt
    return rows
