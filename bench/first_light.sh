#!/usr/bin/env bash
# What to run first on a new GPU: are the kernels right and fast, how fast is training, and what comes of five minutes.
#
#     bench/first_light.sh                    25 minutes; called again, it goes on where it was
#     bench/first_light.sh tune cram          these steps, also where they have results
#     bench/first_light.sh --tiny out=FOLDER  tiny sizes, also on a CPU
#
# Another interpreter than that of .venv: PYTHON=python3 bench/first_light.sh. Steps and words: bench/first_light.sh --help
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root:$root/kernels${PYTHONPATH:+:$PYTHONPATH}
command -v "$python" >/dev/null || python=python3

words=()
steps=
for word in "$@"; do
  case $word in
  --tiny) words+=(tiny=true) ;;
  -* | *=*) words+=("$word") ;;
  *) steps=${steps:+$steps,}$word ;;
  esac
done
exec "$python" -u -m bench.first_light ${steps:+"steps=$steps"} ${words[@]+"${words[@]}"}
