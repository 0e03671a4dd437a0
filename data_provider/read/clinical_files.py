"""ECG files of clinical systems, through the libraries that know them (requirements-readers.txt).

DICOM, SCP-ECG, HL7 aECG, GE MUSE, Philips XML, ISHNE and others go through ecgdatakit, EDF and BDF through `edf`;
GE CardioSoft's XML is read here.
"""

import copy
import os
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from data_provider.read.edf import read_edf
from data_provider.read.groups import choose_signals
from data_provider.read.libraries import with_library
from data_provider.read.tables import TABLES, read_table

MAX_BYTES = 500_000_000
CALIBRATION_S = 0.2  # least length of a calibration pulse, and of the flat line around it, at an end of a recording
ROUNDED = "is not an integer; rounded"  # a warning that does not hold: the exact sampling rate is taken
GROUPS = {"AnnotatedECG": ("component", "series"), "RestingECG": ("Waveform", None)}  # XML root -> what holds an ECG


def read_other(path, sample_rate=None, units=None, leads=None):
    """Read a file that is not WFDB.

    Parameters
    ----------
    path : str or Path
    sample_rate : float, optional
        Hz, for files that don't say.
    units : str, optional
        mV, uV or V, for files that don't say.
    leads : sequence of str, optional
        Names of the signals in the file's order, for files that don't say; twelve without names are taken to be in
        the standard order.

    Returns
    -------
    names, units : list of str
    columns : float64 array [signals, T]
    sample_rate : float
    notes : list of str

    Raises
    ------
    ValueError
        What is wrong, in words that follow the file's name and a colon.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ValueError("no such record (neither the file nor its .hea)")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than the {MAX_BYTES // 1_000_000} MB that are read")
    if not path.stat().st_size:
        raise ValueError("is empty")
    if path.suffix.lower() in TABLES:
        return read_table(path, sample_rate, units, leads)
    if path.suffix.lower() in (".edf", ".bdf"):
        groups, warned = read_edf(path)
    elif b"<CardiologyXML>" in path.read_bytes()[:2000]:
        groups, warned = _read_cardiology_xml(path), []
    else:
        groups, warned = _read_ecgdatakit(path)
    names, unit_names, columns, sample_rate, notes = choose_signals(groups)
    columns, cut = _without_calibration(columns, unit_names, sample_rate)
    return names, unit_names, columns, sample_rate, [*warned, *notes, *cut]


def _read_ecgdatakit(path):
    """Groups of signals and notes. The library reads a file's first group: of several, each is read by itself."""
    with tempfile.TemporaryDirectory() as folder:
        groups, notes, faults = [], [], []
        for word, part in _one_group_each(path, Path(folder)) or [("", path)]:
            try:
                signals, warned = with_library("ecgdatakit", _signals_of, part)
            except ValueError as error:
                faults.append(f"{word}: {error}" if word else str(error))
                continue
            notes += [f"{word}: {one}" if word else one for one in warned if ROUNDED not in one]
            if signals:
                groups.append((word, signals))
    if not groups:
        raise ValueError("; ".join(faults[:9]) or "holds no ECG leads, or median beats alone")
    return groups, notes + faults


def _signals_of(library, path):
    """What the library reads of a file: (name, unit, samples, sample_rate) of each lead; median beats are none."""
    record = library.FileParser().parse(path)
    meta, signals = record.raw_metadata, []
    leads = record.to_physical().leads if any(lead.is_raw for lead in record.leads) else record.leads
    exact = meta.get("sampling_rates") or [_exact_rate(meta)] * len(leads)
    for lead, rate in zip(leads, exact, strict=False):
        samples = lead.samples
        if any(meta.get("lead_fault_samples", ())):  # ISHNE: -32768 says that the electrode was off
            one_bit = lead.adc_resolution * 1e-6  # nV to the mV that the library gives
            samples = np.where(samples < -32767.5 * one_bit, np.nan, samples)
        unit = lead.resolution_unit if lead.is_raw else lead.units
        signals.append((lead.label, unit, samples, float(rate or lead.sampling_rate)))
    return signals


def _exact_rate(meta):
    """A file's sampling rate before the library rounds it to a whole number, where it keeps that."""
    if meta.get("rhythm_time"):
        return meta["rhythm_time"].get("sampling_rate_exact")
    if meta.get("multiplex_groups"):
        return meta["multiplex_groups"][0]["sampling_frequency"]
    interval = meta.get("rhythm_sample_interval_us")
    return 1e6 / interval if interval else None


def _one_group_each(path, folder):
    """(word, file in ``folder``) of each group, without what is of the patient; none where ``path`` has only one."""
    with open(path, "rb") as file:
        head = file.read(4000)
    if head[128:132] == b"DICM":
        return with_library("pydicom", lambda pydicom, path: _dicom_groups(pydicom, path, folder), path)[0]
    if any(root.encode() in head.replace(b"\0", b"") for root in GROUPS):
        return with_library("defusedxml.ElementTree", lambda xml, path: _xml_groups(xml, path, folder), path)[0]
    return []


def _dicom_groups(pydicom, path, folder):
    whole, parts = pydicom.dcmread(path), []
    groups = whole.get("WaveformSequence") or ()
    for number, group in enumerate(groups if len(groups) > 1 else (), 1):
        part = pydicom.Dataset()
        part.file_meta, part.preamble = whole.file_meta, b"\0" * 128
        part.WaveformSequence = pydicom.Sequence([group])
        offset = group.get("MultiplexGroupTimeOffset")
        parts.append((f"group {number}" + (f" from {offset} ms on" if offset else ""), folder / f"{number}.dcm"))
        part.save_as(parts[-1][1])
    return parts


def _xml_groups(xml, path, folder):
    """aECG: each sequence set of each series; MUSE: each waveform."""
    try:
        root = xml.parse(path).getroot()
    except ElementTree.ParseError:
        return []  # ecgdatakit mends a wrong encoding; what it then reads is the first group
    space = root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""
    outer, inner = GROUPS.get(root.tag.removeprefix(space), (None, None))
    holders = root.findall(f"{space}{outer}")
    holders = [holder for holder in holders if inner is None or holder.find(f"{space}{inner}") is not None]
    wanted = []  # (element of the root, what stays of its sequence sets)
    for holder in holders:
        sets = holder.findall(f"{space}{inner}/{space}component") if inner else []
        wanted += [(holder, one) for one in sets] or [(holder, None)]
    parts = []
    for number, (holder, kept) in enumerate(wanted if len(wanted) > 1 else (), 1):
        part = ElementTree.Element(root.tag, root.attrib)
        part.append(_with_one_set(holder, kept, space))
        parts.append((f"group {number}", folder / f"{number}.xml"))
        ElementTree.ElementTree(part).write(parts[-1][1], encoding="utf-8")
    return parts


def _with_one_set(holder, kept, space):
    """A copy of a series' component with one of its sequence sets, and without what is derived from it (beats)."""
    if kept is None:
        return holder
    holder = copy.copy(holder)
    series = holder.find(f"{space}series")
    holder[list(holder).index(series)] = series = copy.copy(series)
    for child in list(series):
        if child is not kept and child.tag.removeprefix(space) in ("component", "derivation", "subjectOf"):
            series.remove(child)
    return holder


def _read_cardiology_xml(path):
    """GE CardioSoft's strips: integers below each ``StripData``."""
    try:
        return [(f"strip {n}", _strip(one)) for n, one in enumerate(ElementTree.parse(path).iter("StripData"), 1)]
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"is a CardiologyXML file without a readable StripData ({error})") from error


def _strip(strip):
    rate, resolution = float(strip.findtext("SampleRate")), strip.find("Resolution")
    if resolution.get("units") != "uVperLsb":
        raise ValueError(f"resolution in {resolution.get('units')}")
    return [
        (wave.get("lead") or "", "uV", np.array(wave.text.split(","), np.float64) * float(resolution.text), rate)
        for wave in strip.findall("WaveformData")
    ]


def _without_calibration(columns, units, sample_rate):
    """Cut off an end at which all leads show the same step of 1 mV: the recorder's calibration pulse."""
    one_mv = {"mv": 1.0, "uv": 1000.0}.get(units[0].lower())
    if one_mv is None or len(set(units)) > 1 or len(columns) < 8:
        return columns, []
    same = np.ptp(columns, axis=0) < 0.02 * one_mv
    for backwards in (True, False):
        ordered = same[::-1] if backwards else same
        length = len(ordered) if ordered.all() else int(np.argmin(ordered))
        pulse = columns[0, -length:] if backwards else columns[0, :length]
        if CALIBRATION_S * sample_rate <= length < columns.shape[1] and abs(np.ptp(pulse) - one_mv) < 0.1 * one_mv:
            kept = columns[:, :-length] if backwards else columns[:, length:]
            end = "end" if backwards else "start"
            return kept, [f"{length / sample_rate:.2g} s of calibration pulse at the {end} left out"]
    return columns, []
