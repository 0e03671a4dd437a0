"""What a report says: findings that are present, uncertain or absent in it, read by the rules of ``findings.toml``.

Two reports that share few words can say the same, and one word can turn a report round; so beside the n-gram scores
stands how well the findings of a text agree with those of the reference, and with the data set's own statements. The
rules are validated on PTB-XL's reports against its SCP codes (``docs/findings.md``); findings that don't reach a
precision and a recall of 0.8 there are told from the text, but not scored.
"""

import ast
import csv
import functools
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
    r"^[\w()]*,? ?(\w+ )?(is |are |ist )?"
    r"(moglich\w*|possible|possibly|nicht auszu\w*|nicht sicher|can ?not be (ruled|excl)\w*"
    r"|nicht ausge\w*|is likely|likely|wahrscheinlich|mogl\b|should be considered|bor overv\w*|kan ej|fraglich|\?)"
)


def plain(text):
    """A text in the rules' letters: lower case, one blank, umlauts and their two-letter spellings as one letter; what
    follows "edit:" is an editor's note in PTB-XL's reports and is left out."""
    text = re.sub(r"\s+", " ", text.lower()).split("edit:")[0]
    for letters, letter in (("ä", "e"), ("ae", "e"), ("ö", "o"), ("oe", "o"), ("ü", "u"), ("ue", "u"), ("ß", "ss")):
        text = text.replace(letters, letter)
    return text.replace("å", "a").strip()


class Rule(NamedTuple):
    """How a finding is worded, what only looks like it, the statements that mean it, and whether it is scored."""

    said: re.Pattern
    unlike: re.Pattern | None
    codes: frozenset
    scored: bool


@functools.cache
def rules():
    """Finding -> its `Rule`."""
    with open(TABLE, "rb") as file:
        table = tomllib.load(file)
    return {
        name: Rule(
            said=re.compile("|".join(map(plain, rule["said"]))),
            unlike=re.compile("|".join(map(plain, rule["not"]))) if "not" in rule else None,
            codes=frozenset(rule["codes"]),
            scored=rule.get("scored", True),
        )
        for name, rule in table.items()
    }


@functools.lru_cache(maxsize=100_000)
def read_findings(text):
    """Finding -> "present", "uncertain" or "absent", for what the text speaks of.

    A certain mention wins over an uncertain one, and that over a denied one.
    """
    text, found = plain(text), {}
    for name, rule in rules().items():
        searched = rule.unlike.sub(" ", text) if rule.unlike else text
        states = {_state(searched, match) for match in rule.said.finditer(searched)}
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


def read_codes(table):
    """Record path without extension (as in manifests) -> statements, from ``ptbxl_database.csv``."""
    found = {}
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror})") from error
    for number, row in enumerate(rows, start=1):
        try:
            found[row["filename_hr"]] = found[row["filename_lr"]] = codes_of_row(row)
        except (KeyError, ValueError, SyntaxError, AttributeError) as error:
            form = "filename_hr, filename_lr or scp_codes of PTB-XL's form"
            raise UserError(f"{table}: row {number} has no {form}") from error
    return found


def attach_codes(rows, root):
    """Write a data set's own statements into report rows, as ``scp_codes``, where ``root`` holds PTB-XL's table and
    all of the rows' records stand in it."""
    table = Path(root) / "ptbxl_database.csv"
    codes = read_codes(table) if table.is_file() else {}
    if all(row.get("ecg_path") in codes for row in rows):
        for row in rows:
            row["scp_codes"] = codes[row["ecg_path"]]


def scored_findings():
    """Names of the findings that the rules read well enough to be scored."""
    return [name for name, rule in rules().items() if rule.scored]


def label_counts(texts, truths):
    """What each item adds to the F1 of each scored finding: int array [N, F, 3] of right, said and true.

    A finding counts as said where the text names it present or uncertain ("possible ..." is a claim, too); an item
    whose truth is uncertain counts neither way for it.

    Parameters
    ----------
    texts : list of str
        Predictions.
    truths : list
        A text (the reference), or a dict of statements -> likelihood.
    """
    names = scored_findings()
    counts = np.zeros((len(texts), len(names), 3), np.int64)
    for item, (text, truth) in enumerate(zip(texts, truths, strict=True)):
        said = read_findings(text)
        known = read_findings(truth) if isinstance(truth, str) else None
        for place, name in enumerate(names):
            claimed = said.get(name, ABSENT) != ABSENT
            if known is not None:
                true = known.get(name, ABSENT) != ABSENT
            else:
                state = state_by_codes(truth, rules()[name].codes)
                if state == UNCERTAIN:
                    continue
                true = state == PRESENT
            counts[item, place] = claimed and true, claimed, true
    return counts


def f1_scores(counts):
    """F1 of each finding, micro (all findings pooled) and macro (mean over findings that the references hold).

    Parameters
    ----------
    counts : array [B, F, 3]
        Right, said and true, summed over the items.

    Returns
    -------
    array [B, 2 + F]
        Micro, macro, each finding; NaN where a finding is neither said nor true.
    """
    with np.errstate(invalid="ignore"):
        each = 2 * counts[..., 0] / (counts[..., 1] + counts[..., 2])
        pooled = counts.sum(1)
        micro = 2 * pooled[:, 0] / (pooled[:, 1] + pooled[:, 2])
        held = counts[..., 2] > 0
        macro = np.where(held, np.nan_to_num(each), 0).sum(1) / held.sum(1)
    return np.concatenate([micro[:, None], macro[:, None], each], axis=1)


def score_labels(counts):
    """``micro_f1``, ``macro_f1`` and ``by_finding`` from `label_counts`: None where nothing is said nor true."""
    total = counts.sum(0, keepdims=True)
    values = [None if np.isnan(value) else float(value) for value in f1_scores(total)[0]]
    return {
        "micro_f1": values[0],
        "macro_f1": values[1],
        "by_finding": dict(zip(scored_findings(), values[2:], strict=True)),
    }
