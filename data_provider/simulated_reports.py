"""The report of a simulated ECG: short English sentences, lower case, that follow from its findings alone.

Two cardiologists write them, each in his own fixed words; which of them reads an ECG is drawn.
"""

AXIS = ("left axis deviation.", "axis deviated to the left."), ("normal axis.", "axis normal.")
RHYTHM = {
    "SR": ("sinus rhythm, rate {}.", "regular sinus rhythm at {} per minute."),
    "SBRAD": ("sinus bradycardia, rate {}.", "sinus rhythm, slow, at {} per minute."),
    "STACH": ("sinus tachycardia, rate {}.", "sinus rhythm, fast, at {} per minute."),
    "AFIB": ("atrial fibrillation, ventricular rate {}.", "no p waves, atrial fibrillation at {} per minute."),
}
# In the order in which a report names them: conduction, infarction, hypertrophy, voltage, QT, ectopic beats
FINDINGS = {
    "1AVB": ("first degree av block.", "pr interval prolonged."),
    "CLBBB": ("left bundle branch block.", "broad qrs with left bundle branch block."),
    "CRBBB": ("right bundle branch block.", "broad qrs with right bundle branch block."),
    "IMI": ("{} inferior myocardial infarction.", "inferior infarction, {}."),
    "AMI": ("{} anterior myocardial infarction.", "anterior infarction, {}."),
    "LVH": ("left ventricular hypertrophy with strain.", "high voltage with strain, left ventricular hypertrophy."),
    "LVOLT": ("low qrs voltage.", "low voltage in all leads."),
    "LNGQT": ("prolonged qt interval.", "qt interval too long."),
    "PVC": ("{} ventricular premature complex{}.", "ventricular ectopy, {} beat{}."),
}
STAGES = {"Stadium I": ("acute", "early"), "Stadium II": ("subacute", "recent"), "Stadium III": ("old", "old")}
NORMAL = "normal ecg.", "no abnormality found."
NOISE = ("static noise.", "disturbed by static noise."), ("baseline drift.", "baseline drifts.")
COUNTS = "no", "one", "two", "three"


def write_report(ecg, rate, reader):
    """The report of an ``Ecg`` whose ventricular rate was measured; ``reader`` is 0 or 1. At most about 30 words."""
    parts = [RHYTHM[ecg.rhythm][reader].format(round(rate / 10) * 10), AXIS[0 if ecg.patient.axis < -30 else 1][reader]]
    for name, texts in FINDINGS.items():
        if name in ecg.findings:
            stage = STAGES[ecg.stage][reader] if ecg.stage else ""
            words = (COUNTS[ecg.ectopics], ("s", "es")[reader == 0] * (ecg.ectopics > 1)) if name == "PVC" else (stage,)
            parts.append(texts[reader].format(*words))
    if ecg.findings == ("NORM",):
        parts.append(NORMAL[reader])
    parts += [text[reader] for text, there in zip(NOISE, (ecg.static, ecg.drift), strict=True) if there]
    return " ".join(parts)
