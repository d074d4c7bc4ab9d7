"""Load a tokenizer.json. `wordpiece.py` trains one."""

from pathlib import Path

from tokenizers import Tokenizer

from cram.config.data import SpecialConfig
from cram.data.special_tokens import NAMES, SpecialTokens
from cram.data.token_roles import assign_roles
from cram.errors import CramError

UNUSUAL = "\U00013000 \ua66e \ue000"  # a hieroglyph, a letter of one manuscript, and a character of private use


def load_tokenizer(path: str | Path, special: SpecialConfig | None = None) -> Tokenizer:
    """Load a tokenizer.json and give its special tokens their roles.

    `encode` of the tokenizer returns a framed document, neither truncated nor padded, and always the same ids for the
    same text.

    Args:
        path: the tokenizer.json.
        special: the special tokens that the user has named.

    Raises:
        CramError: if the file is missing or not a tokenizer, no token ends a document, or unknown text makes it fail.
    """
    if not Path(path).is_file():
        raise CramError(f"tokenizer={path}: there is no such file; give the path of a tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CramError(f"tokenizer={path}: not a tokenizer.json ({error}).") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None  # with dropout the same text would have other tokens each time
    assign_roles(tokenizer, Path(path), special or SpecialConfig())
    try:
        tokenizer.encode(UNUSUAL)
    except Exception as error:  # the library raises bare Exception
        raise CramError(
            f"tokenizer={path}: it fails at characters that it does not know ({error}); "
            "give one whose token for unknown text is in its vocabulary."
        ) from error
    return tokenizer


def check_mask(path: str, special: SpecialConfig) -> None:
    """Check that a tokenizer.json can be used for masked language modelling.

    Raises:
        CramError: if no token has the role mask.
    """
    if SpecialTokens.of(load_tokenizer(path, special)).mask is None:
        raise CramError(
            f"tokenizer={path}: objective.kind=masked needs a mask, and its vocabulary has none of "
            f"{' '.join(NAMES['mask'])}; name one with special.mask=TOKEN, which is added if it is missing."
        )
