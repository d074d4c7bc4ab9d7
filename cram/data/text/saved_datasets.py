"""Folders that `Dataset.save_to_disk` writes: which of their files hold records."""

import json
from collections.abc import Iterable

from cram.errors import CramError

# Of a folder with both, all that is not data is left out: these files, and results of `map` that were cached there.
BOOKKEEPING = ("state.json", "dataset_info.json")
CACHED = ("cache-", "tmp")
DICTIONARY = "dataset_dict.json"  # of a folder with a folder for each split


def select_record_files(source: str, names: Iterable[str]) -> list[str]:
    """Return the files below a folder without those that only describe a saved data set.

    Args:
        source: the folder, for messages.
        names: paths of the files, with `/` between the steps.

    Raises:
        CramError: there are several splits of a data set, which are not one source.
    """
    paths = [name.rpartition("/") for name in names]
    found = {(folder, name) for folder, _, name in paths}
    for folder, _, name in paths:
        splits = sorted(
            inner.removeprefix(f"{folder}/")
            for inner, file in found
            if file == BOOKKEEPING[0] and inner.rpartition("/")[0] == folder
        )
        if name == DICTIONARY and splits:
            raise CramError(
                f"data.source={source!r}: {folder} is a saved data set with the splits {', '.join(splits)}\n"
                f"give the folder of one split, such as {json.dumps(f'{folder}/{splits[0]}', ensure_ascii=False)}."
            )
    saved = {folder for folder, _ in found if all((folder, name) in found for name in BOOKKEEPING)}
    return [
        folder + step + name
        for folder, step, name in paths
        if folder not in saved or not (name in BOOKKEEPING or name.startswith(CACHED))
    ]
