"""What a PTB-XL row says of its ECG, in plain words: SCP statements, heart axis, infarction stage, noise, extra beats.

Each finding is True (there), None (uncertain: nothing is asked about it) or absent from the dict (not there). A kind of
finding that the row does not speak of at all (no heart axis noted) is missing from the annotations.
"""

import ast
import re

# PTB-XL's axis codes; AXL, AXR and SAG (156 of 21,837 rows) have no agreed English word and are left out.
AXES = {
    "MID": "normal heart axis",
    "LAD": "left axis deviation",
    "ALAD": "left axis deviation",
    "RAD": "right axis deviation",
    "ARAD": "right axis deviation",
}
STAGES = {
    "stadium i": "early stage of myocardial infarction",
    "stadium i-ii": "early stage of myocardial infarction",
    "stadium ii": "middle stage of myocardial infarction",
    "stadium ii-iii": "middle stage of myocardial infarction",
    "stadium iii": "old stage of myocardial infarction",
}
NOISES = {
    "baseline_drift": "baseline drift",
    "static_noise": "static noise",
    "burst_noise": "burst noise",
    "electrodes_problems": "electrode problems",
}
VENTRICULAR, SUPRAVENTRICULAR = "ventricular extrasystoles", "supraventricular extrasystoles"
CLASSES = {
    "MI": "myocardial infarction",
    "STTC": "st/t change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
FINDINGS = {  # all that can be found, for the kinds that don't depend on the table of statements
    "scp_class": set(CLASSES.values()),
    "heart_axis": set(AXES.values()),
    "stage_of_infarction": set(STAGES.values()),
    "noise": set(NOISES.values()),
    "extra_systole": {VENTRICULAR, SUPRAVENTRICULAR},
}
CERTAIN = 50  # a likelihood from here on counts as present, one between 0 and this as uncertain


class Statements:
    """The SCP statements of ``scp_statements.csv``: their names and the groups they belong to.

    Parameters
    ----------
    rows : iterable of dict
        The table's rows; the code stands in the first column, whose header is empty.
    """

    def __init__(self, rows):
        self.names, self.groups, self.unlikely_without_value = {}, {}, set()
        for row in rows:
            code = (row.get("") or row.get("code") or "").strip()
            if not code:
                continue
            name = plain_name(row["description"])
            self.names[code] = name
            kinds = [kind for kind in ("diagnostic", "form", "rhythm") if _is_one(row.get(kind))]
            for kind in kinds:
                self.groups.setdefault(kind, {})[code] = name
            diagnostic_class = (row.get("diagnostic_class") or "").strip()
            if diagnostic_class in CLASSES:
                self.groups.setdefault(diagnostic_class, {})[code] = name
            if kinds == ["diagnostic"]:
                self.unlikely_without_value.add(code)

    def read(self, text):
        """Code -> True or None (uncertain) from a row's ``scp_codes``.

        PTB-XL gives each statement a likelihood in percent. It writes 0 where none was derived, which is so for nearly
        all form and rhythm statements: there 0 means present. A purely diagnostic statement with 0, and any with less
        than 50, is uncertain. ValueError when the text is not a dict of numbers.
        """
        present = {}
        for code, likelihood in self.likelihoods(text).items():
            sure = likelihood >= CERTAIN or (likelihood == 0 and code not in self.unlikely_without_value)
            present[code] = True if sure else None
        return present

    def likelihoods(self, text):
        """Code -> likelihood in percent, of the codes that the table knows."""
        try:
            codes = ast.literal_eval(text)
            return {str(code): float(likelihood) for code, likelihood in codes.items() if code in self.names}
        except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError):
            raise ValueError("scp_codes is not a dict of likelihoods") from None


def annotate(row, statements):
    """All findings of a row.

    Returns
    -------
    dict
        Attribute type of ECG-QA -> {finding: True or None}; under "likelihoods" what
        PTB-XL says of each SCP code.
    """
    codes = statements.read(row["scp_codes"])
    found = {"likelihoods": statements.likelihoods(row["scp_codes"]), "scp_code": {}, "scp_class": {}}
    for code, state in codes.items():
        merge(found["scp_code"], statements.names[code], state)
    for diagnostic_class, name in CLASSES.items():
        for code in statements.groups.get(diagnostic_class, {}):
            if code in codes:
                merge(found["scp_class"], name, codes[code])
    axis = (row.get("heart_axis") or "").strip()
    if axis in AXES:
        found["heart_axis"] = {AXES[axis]: True}
    stages = _stages(row, found["scp_class"])
    if stages is not None:
        found["stage_of_infarction"] = stages
    found["noise"] = {name: state for column, name in NOISES.items() if (state := _noise(row.get(column))) is not False}
    found["extra_systole"] = _extra_beats(row.get("extra_beats") or "", codes)
    return found


def merge(findings, name, state):
    """Note a finding; a certain mention wins over an uncertain one."""
    findings[name] = True if state or findings.get(name) else None


def plain_name(description):
    """A statement's description as an answer: lower case, one space, no "." (which separates answer items)."""
    return re.sub(r"\s+", " ", description.replace(".", " ")).strip().lower()


def _is_one(text):
    return (text or "").strip() in ("1", "1.0")


def _stages(row, classes):
    """Stages of infarction; None where nothing can be said, {} where there is no infarction."""
    noted = [(row.get(f"infarction_stadium{n}") or "").strip().lower() for n in (1, 2)]
    noted = [stage for stage in noted if stage]
    if not noted:
        return None if "myocardial infarction" in classes else {}
    if any(stage not in STAGES for stage in noted):  # "unknown"
        return None
    return {STAGES[stage]: True for stage in noted}


def _noise(text):
    text = (text or "").strip(" ,\t\r\n")
    if not text or text.lower() == "nan":
        return False
    return None if "?" in text else True


def _extra_beats(text, codes):
    """Kinds of extra beats. A count without a kind ("1ES") leaves both kinds open."""
    words = re.findall(r"[A-Z]+", text.upper().replace("NAN", ""))
    found = {}
    if any("SVES" in word for word in words):
        found[SUPRAVENTRICULAR] = True
    if any(re.search(r"(?<!S)VES", word) for word in words):
        found[VENTRICULAR] = True
    if not found and text.strip(" ,") and text.strip(" ,").lower() != "nan":
        found = {VENTRICULAR: None, SUPRAVENTRICULAR: None}
    # A statement of the same thing that the column doesn't repeat (or leaves open) makes the kind uncertain, not absent
    for code, kind in (("PVC", VENTRICULAR), ("PAC", SUPRAVENTRICULAR), ("BIGU", VENTRICULAR), ("TRIGU", VENTRICULAR)):
        if code in codes:
            found.setdefault(kind, None)
    if "PRC(S)" in codes:
        found.setdefault(VENTRICULAR, None)
        found.setdefault(SUPRAVENTRICULAR, None)
    return found
