"""Rules that divide compute between size and data, by the ratio of tokens to parameters."""

import math
from dataclasses import dataclass

ONE_EPOCH_RATIO = 5.0
ONE_EPOCH_WINDOW = (1.8, 11.5)
CHINCHILLA_RATIO = 20.0
PREDICTED_SHARE = 0.25  # of the positions, usual in masked language modelling


@dataclass(frozen=True)
class SizeAndData:
    """A size and the tokens that it is trained on.

    Attributes:
        parameters: of the model.
        tokens: to train on.
    """

    parameters: float
    tokens: float

    @property
    def ratio(self) -> float:
        """Tokens per parameter."""
        return self.tokens / self.parameters


def divide_by_ratio(product: float, ratio: float) -> SizeAndData:
    """Divide a product of parameters and tokens so that their ratio is as given: P = sqrt(K / r), T = sqrt(r K).

    Args:
        product: K = P T, which is a sixth of the floating-point operations.
        ratio: tokens per parameter.
    """
    return SizeAndData(math.sqrt(product / ratio), math.sqrt(ratio * product))


def adjust_one_epoch(product: float) -> SizeAndData:
    """Minimise |T / P - 5| at constant P T.

    Source: arXiv:1906.06669, the size adjustment for training without repetition. P counts all parameters,
    the embedding included; T are words. 5 stands for the geometric mean of the window in which its models of 18, 45 and
    128 million parameters were better than the other two.

    Args:
        product: parameters times tokens.
    """
    return divide_by_ratio(product, ONE_EPOCH_RATIO)


def in_one_epoch_window(ratio: float) -> bool:
    """Whether tokens per parameter are within the window of arXiv:1906.06669, so that an adjustment gains little."""
    low, high = ONE_EPOCH_WINDOW
    return low <= ratio <= high


def one_epoch_speedup(updates_to_best: float, updates_of_single: float) -> float:
    """Return E of arXiv:1906.06669: by which factor training without repetition is faster.

    Args:
        updates_to_best: after which the training over several epochs has its least held-out loss.
        updates_of_single: after which the training without repetition reaches that loss.
    """
    return updates_to_best / updates_of_single


def divide_compute(flops: float, predicted_share: float = 1.0) -> SizeAndData:
    """Divide compute by a law of small decoders, changed for objectives that predict only a share of the positions.

    N = sqrt(r) 110.7e6 (C / 1e18)^0.54, D = C / (6 N)

    Source: the IsoFLOP curves of nanochat (github.com/karpathy/nanochat, Muon, 1e18 to 1e19 operations), about 10.5
    tokens per parameter as operations are counted there. The factor sqrt(r) is a hypothesis: if the loss is
    A / N^a + B / (r D)^a, with r the share of positions that are predicted, the best size moves by sqrt(r). There is
    no published law for masked language models of text.

    Args:
        flops: C, of the whole training.
        predicted_share: r; 1 for a causal model.

    Returns:
        N, the matrices of the blocks and of the head, and D.
    """
    parameters = math.sqrt(predicted_share) * 110.7e6 * math.pow(flops / 1e18, 0.54)
    return SizeAndData(parameters, flops / (6 * parameters))
