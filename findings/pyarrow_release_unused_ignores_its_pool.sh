#!/usr/bin/env bash
# pyarrow 26.0.1: MemoryPool.release_unused() always acts on the process's default pool, not on the pool it is called on.
# Expected: system_memory_pool().release_unused() returns the C library's free memory to the system, whatever the
# default pool is, and mimalloc_memory_pool().release_unused() leaves it alone.
# Seen: with the default pool mimalloc, the system pool returns nothing (200 MB are kept). With the default pool system
# (ARROW_DEFAULT_MEMORY_POOL=system), the call on the mimalloc pool returns them.
# Needs Linux with the GNU C library. Passes while this is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
for default in mimalloc system; do
    for called in mimalloc system; do
        ARROW_DEFAULT_MEMORY_POOL=$default "$folder/venv/bin/python" - "$called" <<'PYTHON'
import re
import sys
from pathlib import Path

import pyarrow as pa


def held() -> int:
    return int(re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1000


pool = {"mimalloc": pa.mimalloc_memory_pool, "system": pa.system_memory_pool}[sys.argv[1]]()
default = pa.default_memory_pool().backend_name
objects = [bytes(2000) for _ in range(100_000)]
last = objects[-1]  # above all others, so that the C library keeps them
del objects
before = held()
pool.release_unused()
freed = before - held()
print(f"pyarrow {pa.__version__}, default pool {default}, release_unused on {pool.backend_name}: {freed} of {before} MB")
assert pool.backend_name == sys.argv[1]
assert (freed > 150) == (default == "system"), "the call now acts on its own pool"
PYTHON
    done
done
echo "as described: the default pool decides, not the pool of the call"
