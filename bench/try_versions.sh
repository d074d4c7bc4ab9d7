#!/usr/bin/env bash
# Check cram with other versions of its packages. In a new environment with the packages that are named, this runs the
# kernels' tests on the reference and in Triton's interpreter, compiles every kernel for every GPU of the compile table,
# and trains a demo.
#
#     bash bench/try_versions.sh python3.12 torch==2.14.1
#     VENV=/tmp/env bash bench/try_versions.sh python3.13 torch==2.13.0 transformers==5.24.0     (keeps the environment)
#
# It is not part of CI, because plain torch brings gigabytes of CUDA. It prints a line for each step, and ends with
# status 1 if a step has failed.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:?the interpreter, such as python3.12}
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${VENV:-$work/venv}
run=$venv/bin/python
export OMP_NUM_THREADS=1 PYTHONPATH=$root:$root/kernels
failed=0

step() { # name, command ...
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "passed  $name: $(tail -n 1 "$work/log" | cut -c1-120)"
  else
    failed=1
    echo "FAILED  $name"
    tail -n 15 "$work/log" | sed 's/^/        /'
  fi
}

test -x "$run" || "$python" -m venv "$venv" || exit 1
cd "$root" || exit 1
# The named packages take the versions given; the others are those that cram's requirements allow.
step "install $*" "$run" -m pip install --quiet "$@" -e "$root[test]"
step "versions" "$run" -c "import sys, torch, triton, transformers, datasets, numpy as n; print('Python', sys.version.split()[0], \
'torch', torch.__version__, 'triton', triton.__version__, 'transformers', transformers.__version__, 'datasets', datasets.__version__, 'numpy', n.__version__)"
step "kernels, reference" "$run" -m pytest -q -p no:cacheprovider tests/kernels
step "kernels, interpreter" env TRITON_INTERPRET=1 CRAM_KERNELS=triton "$run" -m pytest -q -p no:cacheprovider tests/kernels
step "compile table" "$run" -m bench.compile_kernels
step "demo of 20 seconds" bash -c "cd '$work' && '$run' -m cram.train recipe=bert_demo budget=20s device=cpu | tee demo && grep '^trained' demo"
exit $failed
