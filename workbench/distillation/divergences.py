"""How far a student's next-token distribution is from its teacher's, and what one sampled token tells of it.

With teacher p, student q over the same vocabulary, and m = β p + (1 - β) q:

    forward KL   Σ p log(p/q)                         β = 0; covers all that the teacher does
    reverse KL   Σ q log(q/p)                         β = 1; V4's: keeps to what the teacher does
    JSD(β)       β KL(p‖m) + (1 - β) KL(q‖m)          between (GKD)

and from one token y drawn from q, with r = log q(y) - log p(y):

    k1 = r      k2 = r²/2      k3 = exp(-r) - 1 + r   values; k1 and k3 have the mean KL(q‖p)
    L  = stop(r) log q(y)                             a loss with the mean gradient of KL(q‖p)

Report: V4 section 5.1.2, equation 29; GKD (arXiv 2306.13649). Axes: b rows, t tokens, v vocabulary.
"""

import math
from typing import Literal

import torch
from einops import reduce
from torch import Tensor

FORWARD, REVERSE = 0.0, 1.0


def divergence(
    student_logits: Tensor, teacher_logits: Tensor, beta: float = REVERSE, *, temperature: float = 1.0
) -> Tensor:
    """The generalised Jensen-Shannon divergence of every token, in nats, over the whole vocabulary.

    Shapes: both (..., v) -> (...). Logits must be finite. At 0 and 1 it is defined as the two KLs, as in TRL;
    the formula itself tends to 0 there.

    Raises:
        ValueError: shapes differ, beta outside 0..1, or a temperature that is not above 0.
    """
    if student_logits.shape != teacher_logits.shape or not 0 <= beta <= 1 or not temperature > 0:
        raise ValueError(
            f"divergence: got logits of {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}, "
            f"beta={beta}, temperature={temperature}; needs equal shapes, beta in 0..1 and a temperature "
            f"above 0; teacher and student must share one vocabulary"
        )
    log_q = (student_logits / temperature).log_softmax(dim=-1)
    log_p = (teacher_logits / temperature).log_softmax(dim=-1)
    if beta == FORWARD:
        return kl(log_p, log_q)
    if beta == REVERSE:
        return kl(log_q, log_p)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a‖b) of log-probabilities: (..., v) -> (...)."""
    return reduce(log_a.exp() * (log_a - log_b), "... v -> ...", "sum")


def sampled_kl(
    student_logprobs: Tensor, teacher_logprobs: Tensor, kind: Literal["k1", "k2", "k3"] = "k1"
) -> Tensor:
    """Estimates of KL(q‖p) from tokens that the student drew: elementwise.

    k1 and k3 have the right mean, k3 is never negative, k2 is biased. They are for watching: differentiated,
    k1 has a mean gradient of 0 and k3 that of the forward KL. To learn use `sampled_loss`.

    Raises:
        ValueError: an unknown kind.
    """
    r = student_logprobs - teacher_logprobs
    values = {"k1": lambda: r, "k2": lambda: r * r / 2, "k3": lambda: torch.expm1(-r) + r}
    if kind not in values:
        raise ValueError(
            f"sampled_kl: got kind={kind!r}; needs one of {list(values)}; k1 is the plain log-ratio"
        )
    return values[kind]()


def sampled_loss(
    student_logprobs: Tensor, teacher_logprobs: Tensor, mask: Tensor, *, discount: float = 0.0
) -> Tensor:
    """One-token on-policy distillation: a policy gradient whose reward is the log-ratio to the teacher.

    Each token is charged its own ratio and, discounted, those of the tokens after it. At discount 0 the
    gradient has the mean of the full-vocabulary reverse KL's; at 1 that of the KL between whole sequences,
    which also charges a token for the states that it leads to.

    Shapes: all (b, t); mask is True at tokens of the answer -> (b, t), 0 where the mask is False.
    """
    r = ((student_logprobs - teacher_logprobs) * mask).detach()
    to_go = torch.zeros_like(r)
    ahead = r.new_zeros(len(r))
    for t in reversed(range(r.shape[1])):
        ahead = r[:, t] + discount * ahead
        to_go[:, t] = ahead
    return to_go * student_logprobs * mask
