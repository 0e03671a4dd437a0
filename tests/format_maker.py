"""Small files of clinical formats for tests, written field by field so that every fault can be made.

A group is (lead names, int16 array [leads, T], sampling rate), in microvolts.
"""

import base64
import struct

import numpy as np

ISHNE_CODES = {"I": 5, "II": 6, "III": 7, "aVR": 8, "aVL": 9, "aVF": 10, **{f"V{n}": 10 + n for n in range(1, 7)}}
DICOM_CODES = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64, **{f"V{n}": 2 + n for n in range(1, 7)}}


def write_ishne(path, names, digital, rate, nanovolts=1000, checksum=0, tail=b""):
    codes = [ISHNE_CODES[name] for name in names]
    twelve = 12 - len(codes)
    block = struct.pack("<5i", 0, digital.shape[1], 522, 522, 0)[:16] + struct.pack("<h", 1) + bytes(128)
    block += struct.pack("<h", len(codes)) + struct.pack("<12h", *codes, *[-9] * twelve) + bytes(24)
    block += struct.pack("<12h", *[nanovolts] * len(codes), *[-9] * twelve) + bytes(42) + struct.pack("<h", rate)
    header = b"ISHNE1.0" + struct.pack("<H", checksum) + block
    path.write_bytes(header.ljust(522, b"\0") + np.ascontiguousarray(digital.T, "<i2").tobytes() + tail)
    return path


def write_dicom(path, groups, labels=None):
    """Multiplex groups; ``labels`` are theirs ("RHYTHM", "MEDIAN BEAT")."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    def code(value, scheme, meaning):
        item = pydicom.Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return pydicom.Sequence([item])

    def channel(name):
        item = pydicom.Dataset()
        item.ChannelSourceSequence = code(f"2:{DICOM_CODES[name]}", "MDC", f"Lead {name}")
        item.ChannelSensitivity, item.ChannelBaseline, item.ChannelSensitivityCorrectionFactor = "1", "0", "1"
        item.ChannelSensitivityUnitsSequence = code("uV", "UCUM", "microvolt")
        item.WaveformBitsStored = 16
        return item

    whole = pydicom.Dataset()
    whole.SOPClassUID, whole.SOPInstanceUID = TwelveLeadECGWaveformStorage, generate_uid()
    whole.PatientName, whole.Modality = "Doe^Jane", "ECG"
    sequence = []
    for number, (names, digital, rate) in enumerate(groups):
        group = pydicom.Dataset()
        group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = digital.shape
        group.SamplingFrequency, group.WaveformOriginality = str(rate), "ORIGINAL"
        group.ChannelDefinitionSequence = pydicom.Sequence([channel(name) for name in names])
        group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
        group.add_new("WaveformData", "OW", np.ascontiguousarray(digital.T, "<i2").tobytes())
        if labels:
            group.MultiplexGroupLabel = labels[number]
        sequence.append(group)
    whole.WaveformSequence = pydicom.Sequence(sequence)
    whole.file_meta = pydicom.dataset.FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole.save_as(path, enforce_file_format=True)
    return path


def write_aecg(path, series, patient="Doe"):
    """Each of ``series`` is a list of groups: its sequence sets."""

    def sequence(name, row):
        digits = " ".join(map(str, row))
        return (
            f'<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}"/><value xsi:type="SLIST_PQ">'
            f'<origin value="0" unit="uV"/><scale value="1" unit="uV"/><digits>{digits}</digits></value>'
            "</sequence></component>"
        )

    def sequence_set(names, digital, rate):
        step = f'<value><head value="20200101"/><increment value="{1 / rate}" unit="s"/></value>'
        time = f'<component><sequence><code code="TIME_ABSOLUTE"/>{step}</sequence></component>'
        return f"<component><sequenceSet>{time}{''.join(map(sequence, names, digital))}</sequenceSet></component>"

    sets = ["".join(sequence_set(*group) for group in groups) for groups in series]
    body = "".join(f'<component><series><code code="RHYTHM"/>{one}</series></component>' for one in sets)
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><id root="1"/>'
        f"<text>{patient}</text>{body}</AnnotatedECG>",
        encoding="utf-8",
    )
    return path


def write_muse(path, groups):
    """Rhythm waveforms of GE MUSE."""

    def lead(name, row):
        data = base64.b64encode(np.ascontiguousarray(row, "<i2").tobytes()).decode()
        return (
            f"<LeadData><LeadByteCountTotal>{2 * len(row)}</LeadByteCountTotal><LeadSampleCountTotal>{len(row)}"
            "</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>1</LeadAmplitudeUnitsPerBit>"
            f"<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{name}</LeadID><WaveFormData>{data}</WaveFormData>"
            "</LeadData>"
        )

    body = "".join(
        f"<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>{rate}</SampleBase><SampleExponent>0</SampleExponent>"
        f"{''.join(map(lead, names, digital))}</Waveform>"
        for names, digital, rate in groups
    )
    path.write_text(f'<?xml version="1.0" encoding="ISO-8859-1"?><RestingECG>{body}</RestingECG>', encoding="latin-1")
    return path


def write_edf(path, names, digital, rate, onsets=None, damage=()):
    """One-second records; ``onsets`` makes an EDF+D; channels in ``damage`` have a physical range of 0."""
    count, records = len(names) + bool(onsets), digital.shape[1] // rate
    fields = [f"{name:16}" for name in names], [" " * 80] * len(names), ["uV      "] * len(names)
    low = ["0       " if name in damage else "-32768  " for name in names]
    high = ["0       " if name in damage else "32767   " for name in names]
    limits = low, high, ["-32768  "] * len(names), ["32767   "] * len(names)
    signals = [*fields, *limits, [" " * 80] * len(names), [f"{rate:<8}"] * len(names), [" " * 32] * len(names)]
    if onsets:
        extra = f"{'EDF Annotations':16}", " " * 80, " " * 8, "-1      ", "1       ", "-32768  ", "32767   "
        for column, text in zip(signals, (*extra, " " * 80, "30      ", " " * 32), strict=True):
            column.append(text)
    kind = "EDF+D" if onsets else ""
    head = f"{'0':8}{'X X X X':80}{'Startdate X X X X':80}01.01.2000.00.00"[:168].ljust(168) + "01.01.0100.00.00"
    head += f"{256 * (count + 1):<8}{kind:44}{records:<8}{1:<8}{count:<4}" + "".join("".join(c) for c in signals)
    data = b""
    for number in range(records):
        data += np.ascontiguousarray(digital[:, number * rate : (number + 1) * rate], "<i2").tobytes()
        if onsets:
            data += f"+{onsets[number]}\x14\x14\0".encode().ljust(60, b"\0")
    path.write_bytes(head.encode("ascii") + data)
    return path
