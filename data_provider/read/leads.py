"""The twelve leads: their names as files write them, their order, and the equations that tie the limb leads."""

import functools
import re

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_STANDARD = {lead.upper(): lead for lead in LEADS}
_PREFIX = re.compile(r"^(MDC[_ ]ECG[_ ]LEAD[_ ]|MDC[_ ]ECG[_ ]|LEAD[ _]*|ECG[ _]+)", re.IGNORECASE)

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
    """The lead's name as in `LEADS`, whatever its case or prefix ("AVR", "lead v1"); None for any other signal."""
    return _STANDARD.get(_PREFIX.sub("", name.strip()).strip().upper())


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
    rows = {}
    for row, name in enumerate(names):
        lead = standard_name(name)
        if lead in rows:
            raise ValueError(f"lead {lead} is there twice")
        if lead:
            rows[lead] = row
    missing = [lead for lead in LEADS if lead not in rows]
    limb = [lead for lead in LIMB_LEADS if lead in rows]
    if any(lead.startswith("V") for lead in missing) or (missing and len(limb) < 2):
        raise ValueError(f"no lead {', '.join(missing)} among {', '.join(names) or 'no signals'}")
    return rows


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
