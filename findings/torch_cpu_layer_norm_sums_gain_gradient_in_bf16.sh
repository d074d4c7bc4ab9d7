#!/usr/bin/env bash
# torch 2.13.0, CPU: LayerNorm with fp32 weights and a bf16 input sums the gradients of weight and bias over the rows in
# bf16, although the gradients it returns are fp32. A sum of n rows is therefore wrong by more the more rows there are.
# Expected: fp32 sums, as its CUDA kernel has, or as the same call gives after input.float().
# Seen: relative error about 1e-2 at 64 rows, 4e-2 at 1,024 and 1e-1 at 8,192; 1e-6 when the input is cast to fp32 first.
# Passes while this is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn import functional as F

torch.manual_seed(0)
errors = {}
for rows in (64, 1024, 8192):
    x, upstream = torch.randn(rows, 64).bfloat16(), torch.randn(rows, 64).bfloat16()
    weight, bias = torch.ones(64, requires_grad=True), torch.zeros(64, requires_grad=True)
    double = [part.detach().double().requires_grad_() for part in (weight, bias)]
    right = torch.autograd.grad(F.layer_norm(x.double(), (64,), *double), double, upstream.double())
    for name, given, above in (("bf16", x, upstream), ("fp32", x.float(), upstream.float())):
        found = torch.autograd.grad(F.layer_norm(given, (64,), weight, bias), (weight, bias), above)
        assert all(part.dtype == torch.float32 for part in found)
        errors[rows, name] = [float((a - b).norm() / b.norm()) for a, b in zip(found, right, strict=True)]
        print(f"torch {torch.__version__}, {rows} rows, {name} input: weight {errors[rows, name][0]:.1e}, bias {errors[rows, name][1]:.1e}")
assert min(errors[64, "bf16"]) > 3e-3, "the sums are no longer in bf16"
assert min(errors[8192, "bf16"]) > 4e-2, "the sums are no longer in bf16"
assert max(errors[8192, "fp32"]) < 1e-4
print("as described: the sum over the rows is in bf16")
PYTHON
