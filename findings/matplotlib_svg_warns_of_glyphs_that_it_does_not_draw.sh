#!/usr/bin/env bash
# matplotlib 3.11.2: with svg.fonttype=none a figure is saved with its text as text, which the reader's fonts draw. It is
# measured with matplotlib's own font all the same, and each letter that this font lacks is warned about as missing.
# Expected: no warning, because the file holds every letter and matplotlib draws none. Where warnings are errors, a title
# in Chinese cannot be saved.
# Seen: "Glyph 20013 ... missing from font(s) DejaVu Sans.", while the file holds the text whole.
# Passes while this is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet matplotlib==3.11.2
MPLCONFIGDIR="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import warnings
from io import StringIO

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

title = "\u4e2d\u6587"
saved, written = {}, {}
for kind in ("none", "path"):
    with matplotlib.rc_context({"svg.fonttype": kind}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure, axes = pyplot.subplots()
        axes.set_title(title)
        text = StringIO()
        figure.savefig(text, format="svg")
        saved[kind] = [str(warning.message) for warning in caught]
        written[kind] = f">{title}</text>" in text.getvalue()
    print(f"matplotlib {matplotlib.__version__}, svg.fonttype={kind}: text in the file: {written[kind]}; {saved[kind][:1]}")
assert written == {"none": True, "path": False}
assert any("20013" in message and "missing from font" in message for message in saved["path"])  # rightly: it is drawn
assert any("20013" in message and "missing from font" in message for message in saved["none"]), "no warning any more"
print("as described: letters that only the reader's fonts draw are warned about")
PYTHON
