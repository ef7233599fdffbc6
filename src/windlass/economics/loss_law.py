"""Chinchilla's law of the loss, and the cheapest size of model and data for a loss.

L(N, D) = E + A / N^alpha + B / D^beta, Hoffmann et al. 2022; the constants, and those of a later fit of the same runs,
stand in loss_law.json. N parameters, D tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.optimize import minimize_scalar

from windlass.economics.assumption import Assumption
from windlass.economics.assumption_sets import content, packaged
from windlass.economics.formula import Formula
from windlass.errors import UsageError

LOSS = (
    Formula(
        "loss", "loss_floor + loss_a / parameters ** loss_alpha + loss_b / training_tokens ** loss_beta", "nat/token",
        "by Chinchilla's law",
    ),
)  # fmt: skip
HOFFMANN = "hoffmann-2022"
# Sizes between which the law is asked: it was fitted from 4e7 to 2e10 parameters, and is stretched beyond.
SMALLEST, LARGEST = 1e6, 1e14
# Nats a token of guessing among the 160,000 tokens of a large vocabulary.
GUESSING = 12.0


@dataclass(frozen=True, slots=True)
class LossLaw:
    """The five constants."""

    floor: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token."""
        return self.floor + self.a / math.pow(parameters, self.alpha) + self.b / math.pow(tokens, self.beta)

    def tokens(self, parameters: float, loss: float) -> float:
        """Tokens that bring a model of that size to `loss`; infinite where none do."""
        left = loss - self.floor - self.a / math.pow(parameters, self.alpha)
        return math.pow(self.b / left, 1 / self.beta) if left > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Shape:
    """The cheapest size and data for a loss; `flops` are those of training, 6 N D."""

    parameters: float
    tokens: float

    @property
    def flops(self) -> float:
        """Of training."""
        return 6 * self.parameters * self.tokens


def fits() -> tuple[str, ...]:
    """Names of the fits."""
    return tuple(content("loss_law"))


def constants(fit: str) -> dict[str, Assumption]:
    """The constants of a fit as assumptions. Raises UsageError."""
    if fit not in fits():
        raise UsageError(f"--fit {fit!r:.40} is not known; use {' or '.join(fits())}")
    return packaged("loss_law", fit)


def law_of(pool: Mapping[str, Assumption]) -> LossLaw:
    """The law with constants from a pool of assumptions. Raises UsageError where they are none of a law."""
    names = ("loss_floor", "loss_a", "loss_b", "loss_alpha", "loss_beta")
    for name in names[2:]:
        if pool[name].value <= 0:
            raise UsageError(f"{name} is {pool[name].value:g}, and the law wants it above 0; --explain shows it")
    return LossLaw(*(pool[name].value for name in names))


def cheapest(law: LossLaw, loss: float, served: float = 0.0, weight: float = 1.0) -> Shape:
    """The size and data of least cost 6 N D + 2 N x `served` x `weight` that reach `loss`.

    `weight` is how much dearer an operation of serving is than one of training. Raises UsageError for a loss that
    no model reaches.
    """
    # The smallest model that reaches the loss at all, with data without end.
    least = (law.a / (loss - law.floor)) ** (1 / law.alpha) if loss > law.floor else math.inf
    if least > LARGEST / 2:
        raise UsageError(
            f"--loss {loss:.10g} is out of reach: the law's floor is {law.floor:g}, and the largest model counted with "
            f"has {LARGEST:g} parameters; ask for a higher loss"
        )
    if loss > GUESSING:
        raise UsageError(f"--loss {loss:.10g} is above {GUESSING:g}, which guessing reaches; ask for a lower loss")

    def cost(log_size: float) -> float:
        size = math.exp(log_size)
        spent = size * (6 * law.tokens(size, loss) + 2 * served * weight)
        return math.log(spent) if math.isfinite(spent) else 1e6

    low, high = math.log(max(SMALLEST, least * (1 + 1e-9))), math.log(LARGEST)
    best = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    size = math.exp(best.x)
    return Shape(size, law.tokens(size, loss))
