"""The scaling laws of Kaplan et al. for autoregressive language models, with their published constants.

Source: arXiv:2001.08361. The constants hold for decoders with learned positions on WebText2 with 50,257 BPE tokens, a
context of 1024 tokens, Adam, and losses in nats per token. Other texts, vocabularies and objectives have other
constants; masked language models have other losses, so that `CRITICAL_BATCH` says nothing about them.

Symbols and units: N parameters without the embeddings, D tokens of the data, B tokens of an update, S updates, E
tokens processed, C floating-point operations of the training (as PF-days where a law says so), L nats per token.
"""

import math
from dataclasses import dataclass

PF_DAY = 8.64e19  # floating-point operations


@dataclass(frozen=True)
class PowerLaw:
    """L = (scale / x)^exponent.

    Attributes:
        scale: in the unit of x.
        exponent: positive.
    """

    scale: float
    exponent: float

    def loss(self, x: float) -> float:
        """Return the loss at `x`."""
        return math.pow(self.scale / x, self.exponent)

    def inverse(self, loss: float) -> float:
        """Return the x at which a loss is reached."""
        return self.scale / math.pow(loss, 1 / self.exponent)


SIZE = PowerLaw(8.8e13, 0.076)  # equation 1.1: L(N), trained to convergence on enough data
DATA = PowerLaw(5.4e13, 0.095)  # equation 1.2: L(D), a large model, stopped early
COMPUTE = PowerLaw(3.1e8, 0.050)  # equation 1.3: L(C_min) of the best size, PF-days
NAIVE_COMPUTE = PowerLaw(1.6e7, 0.057)  # figure 1: L(C) at the fixed batch of 524,288 tokens, PF-days


@dataclass(frozen=True)
class SizeDataLaw:
    """L(N, D) = ((Nc / N)^(aN / aD) + Dc / D)^aD, equation 1.5.

    Attributes:
        size_scale: Nc, parameters.
        size_exponent: aN.
        data_scale: Dc, tokens.
        data_exponent: aD.
    """

    size_scale: float
    size_exponent: float
    data_scale: float
    data_exponent: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss of a size on so much data, stopped before it overfits. `math.inf` stands for enough data."""
        size = math.pow(self.size_scale / parameters, self.size_exponent / self.data_exponent)
        return math.pow(size + self.data_scale / tokens, self.data_exponent)

    def overfitting(self, parameters: float, tokens: float) -> float:
        """Return by which share the loss is above that with endless data: equation 4.3."""
        return math.pow(1 + self._size_factor(parameters) * self.data_scale / tokens, self.data_exponent) - 1

    def least_data(self, parameters: float, share: float = 0.02) -> float:
        """Return the tokens with which the loss is above that with endless data by `share`: equation 4.3 solved for D.

        The usual share is what the loss varies by between seeds.
        """
        return self.data_scale * self._size_factor(parameters) / (math.pow(1 + share, 1 / self.data_exponent) - 1)

    def _size_factor(self, parameters: float) -> float:
        return math.pow(parameters / self.size_scale, self.size_exponent / self.data_exponent)


SIZE_DATA = SizeDataLaw(6.4e13, 0.076, 1.8e13, 0.103)  # table 2


def data_against_overfitting(parameters: float) -> float:
    """Return the tokens that a size needs so that it hardly overfits: D = 5e3 N^0.74, equation 4.4.

    A model of eight times the size needs about five times the data.
    """
    return 5e3 * math.pow(parameters, 0.74)


@dataclass(frozen=True)
class SizeUpdatesLaw:
    """L(N, S_min) = (Nc / N)^aN + (Sc / S_min)^aS, equation 1.6, after warm-up and on enough data.

    Attributes:
        size_scale: Nc, parameters.
        size_exponent: aN.
        update_scale: Sc, updates.
        update_exponent: aS.
    """

    size_scale: float
    size_exponent: float
    update_scale: float
    update_exponent: float

    def loss(self, parameters: float, updates: float) -> float:
        """Return the loss of a size after so many updates of far more tokens than the critical batch."""
        return self.converged_loss(parameters) + math.pow(self.update_scale / updates, self.update_exponent)

    def converged_loss(self, parameters: float) -> float:
        """Return L(N, infinity)."""
        return math.pow(self.size_scale / parameters, self.size_exponent)

    def excess_at_optimum(self) -> float:
        """Return aN / aS, the share of loss above the converged one where compute is best spent: appendix B."""
        return self.size_exponent / self.update_exponent

    def compute_of_size(self, ratio: float) -> float:
        """Return the compute that another size needs for the loss of the optimal one, as a multiple: appendix B.

        Args:
            ratio: the size as a multiple of the optimal one.

        Returns:
            The multiple; infinity for a model that is too small to reach the loss.
        """
        left = 1 + (1 - math.pow(ratio, -self.size_exponent)) / self.excess_at_optimum()
        return ratio * math.pow(left, -1 / self.update_exponent) if left > 0 else math.inf


SIZE_UPDATES = SizeUpdatesLaw(6.5e13, 0.077, 2.1e3, 0.76)  # table 3


def early_stop(data: SizeDataLaw, updates: SizeUpdatesLaw, parameters: float, tokens: float) -> float:
    """Return a lower bound of the updates after which a model on limited data is best: equation 5.7.

    S_stop >= Sc / (L(N, D) - L(N, infinity))^(1 / aS)
    """
    excess = data.loss(parameters, tokens) - data.loss(parameters, math.inf)
    return updates.update_scale / math.pow(excess, 1 / updates.update_exponent)


@dataclass(frozen=True)
class CriticalBatch:
    """B_crit(L) = B* / L^(1 / aB) tokens, equation 1.4. It doubles for each fall of the loss by 13%.

    Attributes:
        scale: B*, tokens.
        exponent: aB.
    """

    scale: float
    exponent: float

    def tokens(self, loss: float) -> float:
        """Return the critical batch at a loss, in tokens."""
        return self.scale / math.pow(loss, 1 / self.exponent)


CRITICAL_BATCH = CriticalBatch(2.1e8, 0.21)  # appendix A; the text has 2e8


def least_updates(updates: float, batch: float, critical_batch: float) -> float:
    """Return S_min = S / (1 + B_crit / B), the updates that very large batches would need: equation 5.4."""
    return updates / (1 + critical_batch / batch)


def least_tokens(tokens: float, batch: float, critical_batch: float) -> float:
    """Return E_min = E / (1 + B / B_crit), the tokens that very small batches would need: equations 5.1 and 5.2."""
    return tokens / (1 + batch / critical_batch)


def least_compute(compute: float, batch: float, critical_batch: float) -> float:
    """Return C_min = C / (1 + B / B_crit), the compute that very small batches would need: equation 5.5."""
    return compute / (1 + batch / critical_batch)


def updates_for_batch(least: float, batch: float, critical_batch: float) -> float:
    """Return the updates of a batch that do the work of `least` very large ones: S = S_min (1 + B_crit / B).

    At the critical batch they are twice as many, and they process twice the least number of tokens.
    """
    return least * (1 + critical_batch / batch)


def count_weights(layers: int, width: int, mlp_width: int | None = None, attention_width: int | None = None) -> int:
    """Return N = 2 d n_layer (2 d_attn + d_ff), which is 12 n_layer d^2 in the usual proportions: equation 2.1.

    Args:
        mlp_width: d_ff; None for four times the width.
        attention_width: d_attn; None for the width.
    """
    inner = 4 * width if mlp_width is None else mlp_width
    return 2 * width * layers * (2 * (width if attention_width is None else attention_width) + inner)


def forward_flops(parameters: float, layers: int = 0, context: int = 0, attention_width: int = 0) -> float:
    """Return the operations of a forward pass for a token: 2 N + 2 n_layer n_ctx d_attn, equation 2.2.

    Without the last three the attention to other tokens is left out.
    """
    return 2 * parameters + 2 * layers * context * attention_width


def training_flops(
    parameters: float, tokens: float, layers: int = 0, context: int = 0, attention_width: int = 0
) -> float:
    """Return C = 6 N B S, the operations of a training, the backward pass costing twice the forward pass.

    Args:
        tokens: D = B S, all that are processed.
        layers: with `context` and `attention_width`, to count the attention to other tokens too.
    """
    return 3 * forward_flops(parameters, layers, context, attention_width) * tokens


@dataclass(frozen=True)
class ComputeOptimum:
    """How an amount of compute is best spent.

    Attributes:
        parameters: N.
        batch: B, tokens.
        least_updates: S_min.
        tokens: D.
    """

    parameters: float
    batch: float
    least_updates: float
    tokens: float


def published_optimum(compute: float) -> ComputeOptimum:
    """Return the optimum by the fits of appendix A, which were made apart from each other.

    N = 1.3e9 C^0.73, B = 2.0e6 C^0.24, S_min = 5.4e3 C^0.03, D = 2e10 C^0.27

    Args:
        compute: C_min, PF-days.
    """
    return ComputeOptimum(
        parameters=1.3e9 * math.pow(compute, 0.73),
        batch=2.0e6 * math.pow(compute, 0.24),
        least_updates=5.4e3 * math.pow(compute, 0.03),
        tokens=2e10 * math.pow(compute, 0.27),
    )


def compute_exponent(law: SizeUpdatesLaw, critical: CriticalBatch) -> float:
    """Return aC = 1 / (1 / aS + 1 / aB + 1 / aN), with which the loss of the best size falls with C_min: section 6.2.

    N grows as C^(aC / aN), B as C^(aC / aB), S_min as C^(aC / aS).
    """
    return 1 / (1 / law.update_exponent + 1 / critical.exponent + 1 / law.size_exponent)


def compute_law(law: SizeUpdatesLaw, critical: CriticalBatch) -> PowerLaw:
    """Return L(C_min) of the best size, with C in floating-point operations, as the other laws imply it: appendix B.

    Cc = 6 Nc B* Sc (1 + aN / aS)^(1 / aS + 1 / aN) (aS / aN)^(1 / aS)
    """
    excess, exponents = law.excess_at_optimum(), 1 / law.update_exponent + 1 / law.size_exponent
    scale = 6 * law.size_scale * critical.scale * law.update_scale
    scale *= math.pow(1 + excess, exponents) * math.pow(excess, -1 / law.update_exponent)
    return PowerLaw(scale, compute_exponent(law, critical))


def implied_optimum(law: SizeUpdatesLaw, critical: CriticalBatch, compute: float) -> ComputeOptimum:
    """Return how compute is best spent by L(N, S_min) and B_crit(L): appendix B.

    The batch is the critical one, which takes twice the least tokens; `tokens` are those.

    Args:
        compute: C_min, floating-point operations.
    """
    loss = compute_law(law, critical).loss(compute)
    share = law.excess_at_optimum() / (1 + law.excess_at_optimum())  # of the loss that is due to too few updates
    updates = law.update_scale / math.pow(share * loss, 1 / law.update_exponent)
    batch = critical.tokens(loss)
    parameters = law.size_scale / math.pow((1 - share) * loss, 1 / law.size_exponent)
    return ComputeOptimum(parameters, batch, updates, 2 * batch * updates)
