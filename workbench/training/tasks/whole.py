"""Tasks whose answer stands nowhere in the document: it is counted from all of it, or worked out."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from workbench.training.tasks.task import Sample


@dataclass(frozen=True)
class Topic:
    """Words of several topics, mixed; the last token names the topic with the most words.

    Every place counts as much as any other, so no single one answers. Ids: a question mark, the names of
    the topics, their words. Chance: some topic.
    """

    length: int = 40
    n_topics: int = 4
    words_per_topic: int = 8
    share: float = 0.5
    """How likely a word is drawn from the chosen topic; else it comes from a topic at random."""

    def __post_init__(self) -> None:
        if self.length < 1 or self.n_topics < 2 or self.words_per_topic < 1 or not 0 < self.share <= 1:
            raise ValueError(
                f"Topic: got length={self.length}, n_topics={self.n_topics}, words_per_topic="
                f"{self.words_per_topic}, share={self.share}; needs a word, 2 topics with words, and a share "
                f"in (0, 1]; correct the one outside"
            )

    @property
    def vocab_size(self) -> int:
        return 1 + self.n_topics * (1 + self.words_per_topic)

    @property
    def chance(self) -> float:
        return 1 / self.n_topics

    def draw(self, rng: random.Random, is_held_out: bool) -> Sample:
        chosen = rng.randrange(self.n_topics)
        while True:  # until no other topic has as many words
            topics = [
                chosen if rng.random() < self.share else rng.randrange(self.n_topics)
                for _ in range(self.length)
            ]
            counts = Counter(topics)
            if all(counts[chosen] > count for topic, count in counts.items() if topic != chosen):
                break
        first_word = 1 + self.n_topics
        words = [first_word + t * self.words_per_topic + rng.randrange(self.words_per_topic) for t in topics]
        return Sample([*words, 0, 1 + chosen], [self.length + 1])

    def solve(self, ids: Sequence[int]) -> int:
        topics = Counter((word - 1 - self.n_topics) // self.words_per_topic for word in ids[:-1])
        return 1 + topics.most_common(1)[0][0]


@dataclass(frozen=True)
class ModularAddition:
    """a + b = c modulo a number, several sums a document. Nothing in the document helps but a and b.

    A share of the pairs (a, b), as many for every c, is asked only when held out: their sums cannot have
    been learnt by heart. Chance: some c.
    """

    modulus: int = 13
    n_sums: int = 4
    held_out_share: float = 0.25
    split_seed: int = 0

    def __post_init__(self) -> None:
        n_held_out = round(self.held_out_share * self.modulus)
        if not 1 <= n_held_out < self.modulus or self.n_sums < 1:
            raise ValueError(
                f"ModularAddition: got modulus={self.modulus}, held_out_share={self.held_out_share}, n_sums="
                f"{self.n_sums}; of the modulus's pairs for each sum, one or more but not all must be held "
                f"out, and a sum asked; correct the one outside"
            )

    @property
    def vocab_size(self) -> int:
        return self.modulus + 1

    @property
    def chance(self) -> float:
        return 1 / self.modulus

    @cached_property
    def pairs(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The pairs to train on, and those held out."""
        rng, n_held_out = random.Random(self.split_seed), round(self.held_out_share * self.modulus)
        train, held_out = [], []
        for c in range(self.modulus):
            firsts = rng.sample(range(self.modulus), self.modulus)
            pairs = [(a, (c - a) % self.modulus) for a in firsts]
            held_out += pairs[:n_held_out]
            train += pairs[n_held_out:]
        return train, held_out

    def draw(self, rng: random.Random, is_held_out: bool) -> Sample:
        ids: list[int] = []
        for _ in range(self.n_sums):
            a, b = rng.choice(self.pairs[is_held_out])
            ids += [a, b, self.modulus, (a + b) % self.modulus]  # the id after the numbers means "="
        return Sample(ids, list(range(3, len(ids), 4)))

    def solve(self, ids: Sequence[int]) -> int:
        return (ids[-3] + ids[-2]) % self.modulus
