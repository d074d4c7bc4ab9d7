import base64
import hashlib
import json
import math

from cram.reporting.page.scripts import hash_script, write_json

HOSTILE = "</script ><!--<script>&amp;\u2028\u2029é"


def test_json_holds_no_character_that_means_something_to_html() -> None:
    text = write_json({HOSTILE: [HOSTILE, 1, None]})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {HOSTILE: [HOSTILE, 1, None]}


def test_numbers_that_are_not_finite_are_null() -> None:
    assert write_json([math.nan, {"a": math.inf}, (1.5, -math.inf)]) == '[null,{"a":null},[1.5,null]]'


def test_the_hash_of_a_script_is_as_a_policy_wants_it() -> None:
    digest = base64.b64encode(hashlib.sha256("é".encode()).digest()).decode()
    assert hash_script("é") == f"'sha256-{digest}'"
