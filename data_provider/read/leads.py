"""The twelve leads: their names as files write them, their order, and the equations that tie the limb leads."""

import functools
import re
import unicodedata

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MOST_LISTED = 40  # names in an error
_STANDARD = {lead.upper(): lead for lead in LEADS}
_OTHER_NAMES = {f"D{lead}": lead for lead in LEADS[:3]} | {f"D{number}": "I" * number for number in (1, 2, 3)}
_OTHER_NAMES |= {f"C{number}": f"V{number}" for number in range(1, 7)}  # DI: Romance languages; C1: IEC 60601-2-25

_UNITS = r"[mun\u00b5\u03bc]?v|(?:milli|micro|nano)?volts?"
_UNIT = re.compile(
    rf"^(.*?)[\s_,/]*(?:[(\[{{]\s*({_UNITS})\s*[)\]}}]|(?<=[\s_,/])([mun\u00b5\u03bc]v))$", re.IGNORECASE
)
_DISCOVERER = re.compile(r"\((?:einthoven|goldberger|wilson)\)", re.IGNORECASE)
_WORDS = "MDC|ECG|EKG|LEADS?|DERIV(?:ATION|ACION|ACAO)?|ABL(?:EITUNG)?|CHANNEL|EINTHOVEN|GOLDBERGER|WILSON"
_PREFIX = re.compile(rf"^(?:(?:{_WORDS})[\s_.:/-]*)+(?=.)")
_SUFFIX = re.compile(r"[\s_.:/-]+(?:LEADS?|ECG|EKG|REF|WCT)$")
_INVERTED = re.compile(r"(?:^|[\s_.:/(])-(?=[A-Z])")  # "-aVR" is Cabrera's lead, not aVR
_LEAD = re.compile(r"^\+?(A[\s_.-]?V[\s_.-]?[RLF]|[VC][\s_.-]?0?[1-6]|D[\s_.-]?(?:I{1,3}|[123])|I{1,3})$")

# Einthoven's law II = I + III and Goldberger's aVR = -(I + II) / 2, aVL = (I - III) / 2, aVF = (II + III) / 2 make
# every limb lead a weighted sum of I and II.
_FROM_I_AND_II = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}
LIMB_LEADS = tuple(_FROM_I_AND_II)


@functools.lru_cache(1024)  # the same few names in all files of a data set
def standard_name(name):
    """The lead's name as in `LEADS`, however it is written; None for any other signal.

    Case, "ECG", "EKG", "Lead", "MDC_ECG_LEAD_" before it and a unit behind it do not count ("ECG Lead I", "avr",
    "V1 (mV)"); DI, DII, DIII are I, II, III, and C1..C6 are V1..V6. What is inverted ("-aVR"), modified (MLII) or on
    the right (V4R) is another lead.
    """
    name = unicodedata.normalize("NFKC", _DISCOVERER.sub("", split_unit(name)[0]))  # NFKC: Roman numerals of one sign
    text = name.strip(" \t'\"`.:,;").upper()
    if _INVERTED.search(text):
        return None
    text = _SUFFIX.sub("", _PREFIX.sub("", text))
    match = _LEAD.match(text)
    if not match:
        return None
    short = re.sub(r"[\s_.-]", "", match[1]).replace("0", "")
    return _STANDARD.get(short) or _OTHER_NAMES[short]


def split_unit(name):
    """A column's name and the unit written behind it: "I (mV)" is ("I", "mV"), "I" is ("I", None)."""
    match = _UNIT.match(name.strip(" \t'\""))
    return (match[1], match[2] or match[3]) if match else (name, None)


def choose_leads(names, order="name"):
    """Which rows of a file hold the twelve leads.

    Parameters
    ----------
    names : sequence of str
        The signals' names in the file's order.
    order : {"name", "file"}
        "name" goes by the names. "file" takes the first twelve signals as they come (what the published code does).

    Returns
    -------
    rows : dict
        Lead name -> row; limb leads that `complete_leads` can derive may be missing.

    Raises
    ------
    ValueError
        A lead is there twice, or is missing and cannot be derived.
    """
    if order == "file":
        if len(names) < len(LEADS):
            raise ValueError(f"{len(names)} signals, 12 are needed to read leads by position")
        return {lead: row for row, lead in enumerate(LEADS)}
    found = {}
    for row, name in enumerate(names):
        lead = standard_name(name)
        if lead:
            found.setdefault(lead, []).append(row)
    rows = {}
    for lead, of_lead in found.items():
        if len(of_lead) > 1:  # C3 beside V3 may be anything: an electrode on the head, a counter
            of_lead = [row for row in of_lead if lead.upper() in names[row].upper()]
        if len(of_lead) != 1:
            raise ValueError(f"lead {lead} is there twice")
        rows[lead] = of_lead[0]
    missing = [lead for lead in LEADS if lead not in rows]
    limb = [lead for lead in LIMB_LEADS if lead in rows]
    if any(lead.startswith("V") for lead in missing) or (missing and len(limb) < 2):
        raise ValueError(f"no lead {', '.join(missing)} among {listed(names)}")
    return rows


def listed(names):
    """Signal names for an error, and which of them are not known as leads."""
    names = [str(name).strip() or "(no name)" for name in names]
    unknown = [name for name in names if not standard_name(name)]
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    text = ", ".join(names[:MOST_LISTED]) + more
    known = ", ".join(unknown[:MOST_LISTED]) if 0 < len(unknown) < len(names) else ""
    return (text or "no signals") + (f" (not known as leads: {known})" if known else "")


def complete_leads(columns, rows):
    """All twelve leads in standard order, missing limb leads derived from two others.

    Parameters
    ----------
    columns : float64 array [signals, T]
        In one unit.
    rows : dict
        Lead name -> row of ``columns``; V1..V6 and at least two limb leads.

    Returns
    -------
    signal : array [12, T]
        ``columns`` itself where that holds just the leads in order.
    derived : list of str
        The leads that were computed.
    """
    order = [rows.get(lead) for lead in LEADS]
    if order == list(range(len(columns))):
        return columns, []
    derived = [lead for lead in LEADS if lead not in rows]
    signal = columns[[row or 0 for row in order]]
    if derived:
        first, second = [lead for lead in LIMB_LEADS if lead in rows][:2]
        mixing = np.linalg.inv([_FROM_I_AND_II[first], _FROM_I_AND_II[second]])
        for lead in derived:
            a, b = np.asarray(_FROM_I_AND_II[lead]) @ mixing
            signal[LEADS.index(lead)] = a * columns[rows[first]] + b * columns[rows[second]]
    return signal, derived
