"""A record as the counts that its recorder wrote: half the bytes of float32, and the same signal to the last bit.

For records that are used as they are: 16-bit WFDB at the policy's rate and length, with all twelve leads and no gap.
"""

import numpy as np

from data_provider.read.leads import LEADS, choose_leads
from data_provider.read.signal import _standardise
from data_provider.read.wfdb_files import MISSING_16, is_plain, read_digital
from data_provider.read.wfdb_header import check_wfdb, record_file


def load_counts(path, policy):
    """The counts of a record, where `signal_of_counts` may give its signal.

    Returns
    -------
    counts : int16 array [12, samples]
    gains, baselines : float64 arrays [12]
        Counts a mV, and the count at 0 mV.

    None for any other record: one that cannot be read too.
    """
    try:
        file = record_file(path)
        header = check_wfdb(file) if file.suffix == ".hea" else None
        if header is None or not is_plain(header) or header["sample_rate"] != policy.sample_rate:
            return None
        rows = choose_leads(header["names"], policy.lead_order)
        if set(rows) != set(LEADS) or {unit.strip().lower() for unit in header["units"]} != {"mv"}:
            return None
        counts = read_digital(header).T[[rows[lead] for lead in LEADS]]
    except (ValueError, OSError):
        return None
    if counts.shape[1] != policy.samples or counts.min() == MISSING_16:
        return None
    signals = [header["signals"][rows[lead]] for lead in LEADS]
    return counts, *(np.array([signal[key] for signal in signals], np.float64) for key in ("gain", "baseline"))


def signal_of_counts(counts, gains, baselines, out=None):
    """The standardised signal, float32 [12, samples], that `load_signal` gives; into ``out``, if that is given."""
    signal = counts.astype(np.float64)
    if baselines.any():
        signal -= baselines[:, None]
    signal /= gains[:, None]
    return _standardise(signal, np.empty(signal.shape, np.float32) if out is None else out)[0]
