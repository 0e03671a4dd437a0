"""What a report says: findings that are present, uncertain or absent in it, read by the rules of ``findings.toml``.

Two reports that share few words can say the same, and one word can turn a report round; so beside the n-gram scores
stands how well the findings of a text agree with those of the reference, and with the data set's own statements. The
rules are validated on PTB-XL's reports against its SCP codes (``benchmarks/labeler.py``); findings that don't reach a
precision and a recall of 0.8 there are told from the text, but not scored.
"""

import csv
import functools
import re
import tomllib
from pathlib import Path

import numpy as np

from utils.scores.intervals import sums_by_patient
from utils.tools import UserError

TABLE = Path(__file__).with_name("findings.toml")
PRESENT, UNCERTAIN, ABSENT = "present", "uncertain", "absent"
# Words that take a finding back, or make it uncertain: in front of it and behind it, within its clause
BEFORE = 30  # characters
AFTER = 45
DENIED_BEFORE = r"(\bno|\bnot|\bwithout|\bkeine?\w*|\bohne|\binga|\bej|\bnegative for|\bnow absent:?)( \w+)?( \w+)? $"
DENIED_AFTER = r"^\w* ?(is |are )?(not (present|seen|evident)|absent|no longer|nicht (mehr )?(vorhanden|nachweisbar))"
DOUBTED_BEFORE = (
    r"(possibl[ey]|probabl[ey]|suspect\w*|suspicion of|verdacht auf|v\. ?a\.|moglich\w*|wahrscheinlich\w*|fraglich\w*"
    r"|may be( due to)?|consider|suggest\w*|consistent with|likely|mogl\.?|borderline|grenz\w*|missten\w*|sannolikt"
    r"|kriterien fur|criteria for|\?)[ :](\w+ ){0,2}$"
)
DOUBTED_AFTER = (
    r"^[\w()]*,? ?(\w+ )?(is |are |ist )?(moglich\w*|possible|possibly|nicht auszu\w*|nicht sicher|(can ?not|can not) be (ruled|excl)\w*"
    r"|nicht ausge\w*|is likely|likely|wahrscheinlich|mogl\b|should be considered|bor overv\w*|kan ej|fraglich|\?)"
)


def plain(text):
    """A text in the rules' letters: lower case, one blank, umlauts and their two-letter spellings as one letter; what
    follows "edit:" is an editor's note in PTB-XL's reports and is left out."""
    text = re.sub(r"\s+", " ", text.lower()).split("edit:")[0]
    for letters, letter in (("ä", "e"), ("ae", "e"), ("ö", "o"), ("oe", "o"), ("ü", "u"), ("ue", "u"), ("ß", "ss")):
        text = text.replace(letters, letter)
    return text.replace("å", "a").strip()


@functools.cache
def rules():
    """Finding -> (patterns, wordings that only look like it, SCP codes, whether it is scored)."""
    with open(TABLE, "rb") as file:
        table = tomllib.load(file)
    return {
        name: (
            re.compile("|".join(map(plain, rule["said"]))),
            re.compile("|".join(map(plain, rule["not"]))) if "not" in rule else None,
            frozenset(rule["codes"]),
            rule.get("scored", True),
        )
        for name, rule in table.items()
    }


@functools.lru_cache(maxsize=100_000)
def read_findings(text):
    """Finding -> "present", "uncertain" or "absent", for what the text speaks of.

    A certain mention wins over an uncertain one, and that over a denied one.
    """
    text, found = plain(text), {}
    for name, (said, unlike, _, _) in rules().items():
        searched = unlike.sub(" ", text) if unlike else text
        states = {_state(searched, match) for match in said.finditer(searched)}
        state = next((state for state in (PRESENT, UNCERTAIN, ABSENT) if state in states), None)
        if state:
            found[name] = state
    return found


_BEFORE = [(re.compile(DENIED_BEFORE), ABSENT), (re.compile(DOUBTED_BEFORE), UNCERTAIN)]
_AFTER = [(re.compile(DENIED_AFTER), ABSENT), (re.compile(DOUBTED_AFTER), UNCERTAIN)]


def _state(text, match):
    before = re.split(r"[.;]", text[max(0, match.start() - BEFORE) : match.start()])[-1]
    after = re.split(r"[.;]", text[match.end() : match.end() + AFTER])[0]
    for pattern, state in _BEFORE:
        if pattern.search(before):
            return state
    for pattern, state in _AFTER:
        if pattern.search(after):
            return state
    return PRESENT


def codes_of_row(row):
    """SCP code -> likelihood of a row of ``ptbxl_database.csv``, and its heart axis as "axis LAD"."""
    import ast

    codes = {str(code): float(likelihood) for code, likelihood in ast.literal_eval(row["scp_codes"]).items()}
    axis = (row.get("heart_axis") or "").strip()
    return codes | ({f"axis {axis}": 100.0} if axis else {})


def state_by_codes(likelihoods, codes):
    """A finding by a row's statements: "uncertain" where its likeliest code has one from 1 to 49 %, for PTB-XL writes 0
    where none was derived."""
    values = [likelihoods[code] for code in codes if code in likelihoods]
    if not values:
        return ABSENT
    return PRESENT if any(value == 0 or value >= 50 for value in values) else UNCERTAIN
