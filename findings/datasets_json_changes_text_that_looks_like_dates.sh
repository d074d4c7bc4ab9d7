#!/usr/bin/env bash
# datasets 5.2.0 (with pyarrow 26.0.0): load_dataset("json", streaming=True) of two JSON lines files, where every text of
# one of them happens to be a date ("2020-01-01"). With that file first, the column becomes timestamp[s], and the stream
# stops in the second file: "Failed to parse string: 'goodbye' as a scalar of type timestamp[s]". With the ordinary texts
# first, it reads both files, and gives "2020-01-01 00:00:00" where the file says "2020-01-01", without a warning.
# Expected: the six strings that stand in the files, in either order. Seen: an error, or three other strings.
# Passes while this is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.0
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" venv/bin/python - <<'PYTHON'
import json

import datasets
import pyarrow

datasets.disable_progress_bars()
texts = {"dates": ["2020-01-01", "2021-02-03", "2022-03-04"], "words": ["hello", "2021-02-03", "goodbye"]}
for name, own in texts.items():
    with open(f"{name}.jsonl", "w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in own)
found = {}
for first, second in (("dates", "words"), ("words", "dates")):
    files = [f"{first}.jsonl", f"{second}.jsonl"]
    stream = datasets.load_dataset("json", data_files=files, split="train", streaming=True)
    try:
        found[first] = [record["text"] for record in stream]
    except Exception as error:
        found[first] = f"{type(error).__name__}: {error}"
    print(f"datasets {datasets.__version__}, pyarrow {pyarrow.__version__}, {first} first: {found[first]}")
assert found["words"] == texts["words"] + [f"{date} 00:00:00" for date in texts["dates"]]
assert isinstance(found["dates"], str) and "as a scalar of type timestamp" in found["dates"]
print("as described: text that looks like dates breaks the stream or is changed, by the order of the files")
PYTHON
