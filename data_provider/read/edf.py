"""EDF and BDF: through pyedflib, and where that refuses a file for what is no lead's fault, through ecgdatakit."""

import itertools

from data_provider.read.leads import listed, standard_name
from data_provider.read.libraries import with_library
from data_provider.read.wfdb_header import MAX_VALUES


def read_edf(path):
    """Groups of signals (see `groups.choose_signals`) and notes of an EDF, EDF+C or BDF file.

    A channel whose range is damaged refuses a file for pyedflib; the second reader leaves that channel out. Neither
    reads EDF+D with its gaps closed: samples that lie hours apart would stand side by side.
    """
    refused = None
    try:
        (labels, signals), notes = with_library("pyedflib", _pyedflib, path)
    except ValueError as error:
        with open(path, "rb") as file:
            if file.read(8) != b"0       ":  # BDF, or neither
                raise
        refused = error
    if refused:
        try:
            (labels, signals), notes = with_library("ecgdatakit", _ecgdatakit, path)
        except ValueError as error:
            raise ValueError(f"{refused}; {error}") from error
        notes = [f"{refused}: read by ecgdatakit", *notes]
    if not signals:
        raise ValueError(f"holds no ECG leads among {listed(labels)}")
    return [("signals", signals)], notes


def _pyedflib(library, path):
    """All labels, and (name, unit, samples, sample_rate) of the leads."""
    with library.EdfReader(str(path)) as file:
        labels, rates, counts = file.getSignalLabels(), file.getSampleFrequencies(), file.getNSamples()
        kept = [number for number, label in enumerate(labels) if standard_name(label)]
        if sum(counts[number] for number in kept) > MAX_VALUES:
            raise ValueError("declares more samples than are read")
        signals = [(labels[n], file.getPhysicalDimension(n), file.readSignal(n), float(rates[n])) for n in kept]
    return labels, signals


def _ecgdatakit(library, path):
    """As `_pyedflib`; of EDF+D only what has no gaps."""
    record = library.FileParser().parse(path)
    meta, labels = record.raw_metadata, [lead.label for lead in record.leads]
    if record.file_format.version == "EDF+D":
        onsets, records = meta.get("record_onsets", ()), meta["num_records"]
        steps = [later - onset for onset, later in itertools.pairwise(onsets)]
        if len(onsets) != records or any(abs(step - meta["record_duration"]) > 1e-6 for step in steps):
            raise ValueError("EDF+D with gaps between its data records")
    kept = [lead for lead in record.leads if standard_name(lead.label) and not lead.is_raw and lead.units]
    if sum(len(lead.samples) for lead in kept) > MAX_VALUES:
        raise ValueError("declares more samples than are read")
    exact = meta.get("exact_sampling_rates", {})
    rates = [float(exact.get(lead.label, lead.sampling_rate)) for lead in kept]
    return labels, [(lead.label, lead.units, lead.samples, rate) for lead, rate in zip(kept, rates, strict=True)]
