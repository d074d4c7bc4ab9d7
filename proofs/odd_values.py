"""Odd texts for the value of any key, and odd names of keys."""

NUMBERS = """
0 -0 1 -1 +1 01 010 0x10 0o7 0b1 1_000 1__0 _1 1_ 1. .5 1.0 1e3 1E3 1e-3 1e 1e+400 1e-400 1e20 1e308 -1e308
nan .nan inf .inf -.inf Infinity 1/2 1,5 1e3.5 1e99999999999 123456789012345678901234567890
"""
CONSTANTS = "null ~ None true True TRUE yes on cpu cuda mps hf:"
YAML = """
1:30 12:30:00 2001-01-01 ??? {} [] [1 [1,2] [a] [[1]] !!python/name:os.system << # '1' "1" ' " *a
"""
SHELL = r"${oc.env:HOME} ${seed} $HOME `id` \ \n %s %n - -- = a=b"
PATHS = ".. ../.. / . ~nobody"
WITHOUT_SPACES = f"{NUMBERS} {CONSTANTS} {YAML} {SHELL} {PATHS}".split()
WITH_SPACES = ["1 000", "true ", "1 ", "{a: 1}", "- 1", "!!int 3", "&a 1", "a: b", "a #b", "$(id)"]
UNUSUAL_CHARACTERS = ["\n", "\t1", "\x00", "\x1b[31m", "\u202e", "é", "日本", "１２", "٣", "½", "𝟙", "\udcff"]
LONG = ["9" * 400, "1." + "0" * 400, "x" * 5000]
ODD_VALUES = ["", " ", *WITHOUT_SPACES, *WITH_SPACES, *UNUSUAL_CHARACTERS, *LONG]

NAMES = """
seed Seed sed model model. .seed model..layers model.layers.x model.layer lr run.x recipe
= --seed -h= __class__ model.__dict__
"""
ODD_NAMES = ["", "seed ", " seed", "\n", "é", "\udcff", "x" * 3000, *NAMES.split()]
