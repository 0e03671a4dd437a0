"""The process that reads one uploaded ECG: it bounds itself first, reads, leaves signal and notes, and ends.

Its own command, started by `app.uploads`: ``python -m app.read_upload FOLDER REQUEST``.
"""

import json
import resource
import signal
import sys
from pathlib import Path

from utils.tools import UserError


def main(folder, request):
    """Read the ECG in ``folder`` that ``request`` (JSON: ``file``, ``limits``, ``how``) names.

    It leaves answer.json beside it: ``error``, one line, or ``sample_rate`` and ``notes`` with signal.npy, float32 mV
    [12, T]. Being bounded it may also be ended by the system, or run out of memory, without an answer.
    """
    folder, request = Path(folder), json.loads(request)
    limits = request["limits"]
    bound(limits)
    from data_provider.read import RecordError, read_record

    try:
        record = read_record(folder / request["file"], **request["how"])
        if record.signal.shape[1] > limits["samples"]:
            raise RecordError(record.path, f"longer than the {limits['samples']} samples a lead that this page takes")
    except RecordError as error:
        answer = {"error": error.fault}
    except UserError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": f"needs more than the {limits['memory'] // 1_000_000} MB that reading may take"}
    else:
        import numpy as np

        np.save(folder / "signal.npy", record.signal)
        answer = {"sample_rate": float(record.sample_rate), "notes": list(record.notes)}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def bound(limits):
    """No more memory, time or bytes in a file than the limits allow, for this process and what it starts."""
    signal.alarm(limits["clock"])  # the page ends it then; should the page be gone, it ends by itself
    for what, most in (("RLIMIT_AS", "memory"), ("RLIMIT_CPU", "seconds"), ("RLIMIT_FSIZE", "file_bytes")):
        resource.setrlimit(getattr(resource, what), (limits[most], limits[most]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the ECG


if __name__ == "__main__":
    main(*sys.argv[1:])
