"""Does an answer say something else than what was measured? A reader may be sure and wrong; a rate is counted."""

import re

from utils.scores import read_findings

BPM, MS = "/min", " ms"
# Finding -> (measurement, least that fits it, most that fits it, unit). With room beside the textbook's limit, so that
# neither a rounded value nor an error of the measurement is called a contradiction.
FITS = {
    "sinus bradycardia": ("heart_rate", None, 65, BPM),
    "sinus tachycardia": ("heart_rate", 95, None, BPM),
    "first degree AV block": ("pr_ms", 180, None, MS),
    "long QT": ("qtc_ms", 420, None, MS),
    "complete bundle branch block": ("qrs_ms", 100, None, MS),
}
# What is measured in a normal ECG: wider than the textbook's limits, likewise
NORMAL = {
    "heart_rate": (50, 105, BPM),
    "pr_ms": (None, 240, MS),
    "qrs_ms": (None, 130, MS),
    "qtc_ms": (None, 500, MS),
}
# Finding -> what is measured where it can hardly be absent
PRESENT = {
    "sinus bradycardia": ("heart_rate", None, 50, BPM),
    "sinus tachycardia": ("heart_rate", 110, None, BPM),
    "first degree AV block": ("pr_ms", 240, None, MS),
    "long QT": ("qtc_ms", 520, None, MS),
}
NAMES = {"heart_rate": "heart rate", "pr_ms": "PR interval", "qrs_ms": "QRS duration", "qtc_ms": "QTc"}
IRREGULAR_RHYTHM = "atrial fibrillation or flutter"
COMPLETE = re.compile(r"(?<!in)\bcomplete (left|right) bundle branch block")


def contradictions(item, answer, measured):
    """What was measured against an answer.

    Parameters
    ----------
    item : dict
        The question, as in a manifest: its ``question_type`` and ``attribute`` are looked at.
    answer : list of str
    measured : Measurements

    Returns
    -------
    list of str
        A line each.
    """
    if "verify" in item["question_type"] and item.get("attribute") and answer in (["yes"], ["no"]):
        finding = item["attribute"][0]
        return against_claim(finding, measured) if answer == ["yes"] else against_denial(finding, measured)
    return [line for part in answer for line in against_claim(part, measured)]


def against_report(text, measured):
    """What was measured against a report: its findings and the rate that it names."""
    lines = against_claim(text, measured)
    rate = re.search(r"\brate (?:of )?(\d{2,3})\b", text)
    if rate and measured.heart_rate and abs(int(rate[1]) - measured.heart_rate) > 0.15 * measured.heart_rate:
        lines.append(f"rate {rate[1]}, measured {measured.heart_rate:.0f}{BPM}")
    return lines


def against_claim(text, measured):
    """What was measured against the findings that a text calls present."""
    said = {name for name, state in read_findings(text).items() if state == "present"}
    if COMPLETE.search(text.lower()):
        said.add("complete bundle branch block")
    lines = []
    for name, (key, low, high, unit) in FITS.items():
        value = getattr(measured, key)
        if name in said and value is not None and not _within(value, low, high):
            lines.append(f"{name}, measured {NAMES[key]} {value:.0f}{unit}")
    for key, (low, high, unit) in NORMAL.items() if "normal ECG" in said else ():
        value = getattr(measured, key)
        if value is not None and not _within(value, low, high):
            lines.append(f"normal ECG, measured {NAMES[key]} {value:.0f}{unit}")
    if IRREGULAR_RHYTHM in said and measured.rhythm == "regular" and "flutter" not in text.lower():
        lines.append("atrial fibrillation, measured RR intervals are regular")
    return lines


def against_denial(text, measured):
    """What was measured against the absence of the findings that a text names."""
    lines = []
    for name in read_findings(text):
        if name not in PRESENT:
            continue
        key, low, high, unit = PRESENT[name]
        value = getattr(measured, key)
        if value is not None and _within(value, low, high):
            lines.append(f"no {name}, measured {NAMES[key]} {value:.0f}{unit}")
    return lines


def _within(value, low, high):
    return (low is None or value >= low) and (high is None or value <= high)
