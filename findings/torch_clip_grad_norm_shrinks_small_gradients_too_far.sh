#!/usr/bin/env bash
# torch 2.13.0: clip_grad_norm_ multiplies by max_norm / (norm + 1e-6). The 1e-6 is meant as a guard against division by
# zero, and is most of the divisor where gradients are small, as those of a loss that is divided by a large count.
# Expected: gradients of a norm above max_norm come out with the norm max_norm, whatever their size.
# Seen, clipped to a tenth of their norm: 99.9% of it at a norm of 1e-3, 91% at 1e-5, 50% at 1e-6, 9% at 1e-7.
# Passes while this is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

reached = {}
for norm in (1.0, 1e-3, 1e-5, 1e-6, 1e-7):
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), norm / 2)
    before = float(torch.nn.utils.clip_grad_norm_([weight], norm / 10))
    assert abs(before / norm - 1) < 1e-5  # the norm itself is right
    reached[norm] = float(weight.grad.norm()) / (norm / 10)
    print(f"torch {torch.__version__}, norm {norm:g} clipped to {norm / 10:g}: {reached[norm]:.1%} of that")
assert reached[1.0] > 0.999
assert abs(reached[1e-5] - 10 / 11) < 1e-3, "the guard has another size"
assert abs(reached[1e-6] - 1 / 2) < 1e-3, "the guard has another size"
assert abs(reached[1e-7] - 1 / 11) < 1e-3, "the guard has another size"
print("as described: 1e-6 is added to the norm")
PYTHON
