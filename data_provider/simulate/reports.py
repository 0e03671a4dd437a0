"""The report of a simulated ECG: short English sentences, lower case, that follow from its findings alone.

Each finding has one wording, so that scores measure whether findings are right, not the choice of words.
"""

RHYTHM = {
    "SR": "sinus rhythm",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "AFIB": "atrial fibrillation",
}
# In the order in which a report names them: conduction, infarction, hypertrophy, voltage, QT, ectopic beats
FINDINGS = {
    "1AVB": "first degree av block.",
    "CLBBB": "left bundle branch block.",
    "CRBBB": "right bundle branch block.",
    "IMI": "{stage} inferior myocardial infarction.",
    "AMI": "{stage} anterior myocardial infarction.",
    "LVH": "left ventricular hypertrophy with strain.",
    "LVOLT": "low qrs voltage.",
    "LNGQT": "prolonged qt interval.",
    "PVC": "{count} ventricular premature complex{plural}.",
}
STAGES = {"Stadium I": "acute", "Stadium II": "subacute", "Stadium III": "old"}
COUNTS = "no", "one", "two", "three"


def write_report(ecg, rate):
    """The report of an ``Ecg`` whose ventricular rate (a minute) was measured. At most about 30 words."""
    parts = [f"{RHYTHM[ecg.rhythm]}, rate {round(rate / 10) * 10}."]
    parts.append("left axis deviation." if ecg.patient.axis < -30 else "normal axis.")
    details = {"stage": STAGES.get(ecg.stage), "count": COUNTS[ecg.ectopics], "plural": "es" * (ecg.ectopics > 1)}
    parts += [text.format(**details) for name, text in FINDINGS.items() if name in ecg.findings]
    if ecg.findings == ("NORM",):
        parts.append("normal ecg.")
    parts += [text for text, leads in (("static noise.", ecg.static), ("baseline drift.", ecg.drift)) if leads]
    return " ".join(parts)
