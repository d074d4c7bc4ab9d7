"""Adam with weight decay as an L2 penalty, as BERT was trained first."""

import torch

from cram.optim.adamw import AdamW


class Adam(AdamW):
    """Torch's fused Adam: weight decay times the weight is added to the gradient, before the moments.

    Source: arXiv:1412.6980, with the L2 penalty of the original BERT's training in the code of arXiv:2212.14034.
    """

    rule = torch.optim.Adam
