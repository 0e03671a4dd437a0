"""Reading: any ECG file -> `Record` (mV) -> x (standardised [12, 5000])."""

from data_provider.read.counts import load_counts, signal_of_counts
from data_provider.read.leads import LEADS, choose_leads, complete_leads, standard_name
from data_provider.read.records import (
    IMPLAUSIBLE_MV,
    MISSING_SAMPLES,
    SMALL_MV,
    TOO_SHORT,
    UNREADABLE,
    Record,
    RecordError,
    implausible_amplitude,
    read_millivolts,
    read_record,
)
from data_provider.read.signal import SignalPolicy, fit_signal, fit_windows, load_signal, standardise
from data_provider.read.silence import silent_runs
from data_provider.read.wfdb_files import MISSING_16, write_record
from data_provider.read.wfdb_header import check_wfdb, record_file

__all__ = [
    "IMPLAUSIBLE_MV",
    "LEADS",
    "MISSING_16",
    "MISSING_SAMPLES",
    "SMALL_MV",
    "TOO_SHORT",
    "UNREADABLE",
    "Record",
    "RecordError",
    "SignalPolicy",
    "check_wfdb",
    "choose_leads",
    "complete_leads",
    "fit_signal",
    "fit_windows",
    "implausible_amplitude",
    "load_counts",
    "load_signal",
    "read_millivolts",
    "read_record",
    "record_file",
    "signal_of_counts",
    "silent_runs",
    "standard_name",
    "standardise",
    "write_record",
]
