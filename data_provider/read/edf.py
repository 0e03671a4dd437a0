"""EDF and BDF: through pyedflib, and where that refuses a file for what is no lead's fault, through ecgdatakit."""

from data_provider.read.leads import listed, standard_name
from data_provider.read.libraries import with_library
from data_provider.read.wfdb_header import MAX_VALUES


def read_edf(path):
    """Groups of signals (see `groups.choose_signals`) and notes of an EDF, EDF+C or BDF file.

    A channel whose range is damaged refuses a file for pyedflib; the second reader leaves that channel out. Neither
    reads EDF+D with its gaps closed: samples that lie hours apart would stand side by side.
    """
    try:
        return with_library("pyedflib", _pyedflib, path)
    except ValueError as error:
        refused = error
    with open(path, "rb") as file:
        head = file.read(256)
    if head[:8] != b"0       ":  # BDF, or neither
        raise refused
    try:
        signals, notes = with_library("ecgdatakit", _ecgdatakit, path)
    except ValueError as error:
        raise ValueError(f"{refused}; {error}") from error
    return signals, [f"{refused}: read by ecgdatakit", *notes]


def _pyedflib(library, path):
    with library.EdfReader(str(path)) as file:
        labels, rates = file.getSignalLabels(), file.getSampleFrequencies()
        kept = [row for row in range(file.signals_in_file) if standard_name(labels[row])]
        if not kept:
            raise ValueError(f"holds no ECG leads among {listed(labels)}")
        if sum(file.getNSamples()[row] for row in kept) > MAX_VALUES:
            raise ValueError("declares more samples than are read")
        return [
            ("signals", [(labels[n], file.getPhysicalDimension(n), file.readSignal(n), float(rates[n])) for n in kept])
        ]


def _ecgdatakit(library, path):
    record = library.FileParser().parse(path)
    onsets, duration = record.raw_metadata.get("record_onsets"), record.raw_metadata["record_duration"]
    if record.file_format.version == "EDF+D":
        steps = [later - onset - duration for onset, later in zip(onsets or (), (onsets or ())[1:], strict=False)]
        if not onsets or len(onsets) != record.raw_metadata["num_records"] or max(map(abs, steps), default=0) > 1e-6:
            raise ValueError("EDF+D with gaps between its data records")
    rates = record.raw_metadata.get("exact_sampling_rates", {})
    kept = [lead for lead in record.leads if standard_name(lead.label) and not lead.is_raw and lead.units]
    if not kept:
        raise ValueError(f"holds no ECG leads among {listed([lead.label for lead in record.leads])}")
    if sum(len(lead.samples) for lead in kept) > MAX_VALUES:
        raise ValueError("declares more samples than are read")
    rate_of = {lead.label: float(rates.get(lead.label, lead.sampling_rate)) for lead in kept}
    return [("signals", [(lead.label, lead.units, lead.samples, rate_of[lead.label]) for lead in kept])]
