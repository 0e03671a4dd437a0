"""Synthetic ECGs for stage 1 from the published generator deepfake-ecg, as WFDB records with manifests.

    python -m data_provider.generate --to dataset/generated --number 1300 --seed 0

The generator (Pulse2Pulse, a network trained on 7,233 real ECGs, all of them normal; Thambawita et al., Sci Rep 11
(2021) 21896) makes I, II and V1..V6 in microvolts, 10 s at 500 Hz, from noise; the other four leads follow from I and
II. It is optional (requirements-optional.txt). The ECGs have no labels, so they serve stage 1 alone.
"""

import functools
import importlib.metadata
import importlib.util
import multiprocessing
import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_provider.manifests import write_manifest
from data_provider.read import IMPLAUSIBLE_MV, LEADS, write_record
from data_provider.simulate.lead_field import SAMPLE_RATE, SAMPLES, twelve_leads
from utils.tools import UserError, read_json, write_json

VERSION = 1  # raise it whenever the same seed gives other ECGs
PACKAGE, PACKAGE_VERSION = "deepfake-ecg", "1.1.2"
GENERATION = "generation.json"
MICROVOLTS = 6000  # the network's outputs -1..1 are multiples of this
FLAT_MV = 0.05  # a lead that spans less in 10 s shows no heartbeat
ONE_OF_VALID = 10  # every tenth ECG validates, whatever their number


def generate(to, number, seed=0, workers=1, progress=True):
    """Write generated ECGs and their manifests ``train.json`` and ``valid.json``; goes on where it was stopped.

    ECG k of a seed is the same whatever ``number`` and ``workers`` (on another processor to the last microvolt or two),
    so that a larger number extends a smaller one. Left out are ECGs with a lead beyond 10 mV or one that spans less
    than 0.05 mV.

    Parameters
    ----------
    to : str or Path
        The folder; new, or one that holds ECGs of this seed.
    number : int
        ECGs to draw.
    seed : int
    workers : int
        Processes, one thread each.

    Returns
    -------
    dict
        What ``generation.json`` holds: version, package, seed, number, left_out (number of the ECG -> why), finished;
        and "reused", True when nothing had to be done.
    """
    to = Path(to)
    if number < ONE_OF_VALID or seed < 0:
        raise UserError(f"--number must be at least {ONE_OF_VALID}, --seed at least 0 (they are {number} and {seed})")
    source = {"version": VERSION, "package": f"{PACKAGE} {PACKAGE_VERSION}", "seed": seed}
    found = _earlier(to, source)
    missing = [k for k in range(number) if not _is_there(to, k)]
    if found.get("finished") and found.get("number") == number and {str(k) for k in missing} == set(found["left_out"]):
        return found | {"reused": True}
    _check_package()
    for folder in sorted({_path(k).parent for k in missing}):
        (to / folder).mkdir(parents=True, exist_ok=True)
    write_json(to / GENERATION, source | {"number": number, "finished": False})
    bar = tqdm(_drawn([(str(to), seed, k) for k in missing], workers), total=len(missing), desc="generating ECGs",
               unit="ECG", disable=not progress)
    left_out = {str(k): fault for k, fault in bar if fault}
    items = [_item(k) for k in range(number) if str(k) not in left_out]
    valid = range(ONE_OF_VALID - 1, number, ONE_OF_VALID)
    write_manifest(to / "train.json", [item for item in items if item["ecg_id"] not in valid])
    write_manifest(to / "valid.json", [item for item in items if item["ecg_id"] in valid])
    done = source | {"number": number, "left_out": left_out, "finished": True}
    write_json(to / GENERATION, done)
    return done | {"reused": False}


def draw(seed, number):
    """ECG ``number`` of a seed: the leads I, II, V1..V6, float64 [8, 5000] in mV."""
    import torch

    noise = np.random.default_rng([seed, number]).uniform(-1, 1, (1, 8, SAMPLES)).astype(np.float32)
    # One by one: in a batch, sums are computed in another order, so an ECG would depend on the rest of its batch
    with torch.inference_mode():
        return _generator()(torch.from_numpy(noise))[0].numpy().astype(np.float64) * MICROVOLTS / 1000


def fault_of(leads):
    """Why a generated ECG, [12, T] at 1000 adu/mV, is implausible (amplitude or flat lead); None if it is not."""
    leads = leads / 1000
    for name, lead in zip(LEADS, leads, strict=True):
        if np.abs(lead).max() > IMPLAUSIBLE_MV:
            return f"lead {name} reaches {np.abs(lead).max():.1f} mV"
        if np.ptp(lead) < FLAT_MV:
            return f"lead {name} spans {np.ptp(lead):.3f} mV"
    return None


def _earlier(to, source):
    """The content of ``to``'s generation.json, {} for a new folder; a `UserError` where it holds other things."""
    if to.exists() and not to.is_dir():
        raise UserError(f"{to}: is a file; --to must name a folder")
    if not (to / GENERATION).is_file():
        if to.is_dir() and any(to.iterdir()):
            raise UserError(f"{to}: is not empty and holds no generated ECGs ({GENERATION}); choose another --to")
        return {}
    found = read_json(to / GENERATION)
    for key, value in source.items():
        if not isinstance(found, dict) or found.get(key) != value:
            had = found.get(key) if isinstance(found, dict) else None
            raise UserError(f"{to}: holds ECGs of {key} {had}, not {value}; choose another --to")
    return found


def _check_package():
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version != PACKAGE_VERSION:
        raise UserError(
            f"{PACKAGE} {version} is installed, {PACKAGE_VERSION} is needed" if version else
            f"the generator is not installed: pip install {PACKAGE}=={PACKAGE_VERSION} (39 MB)"
        )


@functools.cache
def _generator():
    """The package's network with its weights; single-threaded: another order of summation gives other ECGs."""
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the package's kaiming_normal, which the weights overwrite
        from deepfakeecg.models import Generator

        network = Generator()
    weights = Path(importlib.util.find_spec("deepfakeecg").origin).parent / "checkpoints" / "g_stat.pt"
    # Not the package's own loader: it unpickles the file, which can run any code
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["stat_dict"])
    return network.eval()


def _drawn(jobs, workers):
    if workers <= 1:
        yield from map(_write_ecg, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:  # torch can deadlock in a forked process
        yield from pool.imap(_write_ecg, jobs, chunksize=16)


def _write_ecg(job):
    """Draw an ECG and write its record unless it is implausible: (its number, what is wrong or None)."""
    to, seed, number = job
    leads = twelve_leads(draw(seed, number))
    fault = fault_of(leads)
    if not fault:
        write_record(Path(to) / _path(number), leads, SAMPLE_RATE)
    return number, fault


def _is_there(to, number):
    """Whether a record is whole: the header is written last."""
    header, data = ((to / _path(number)).with_suffix(suffix) for suffix in (".hea", ".dat"))
    try:
        return header.stat().st_size > 0 and data.stat().st_size == SAMPLES * len(LEADS) * 2
    except OSError:
        return False


def _path(number):
    """A record's path without extension, a thousand to a folder."""
    return Path(f"records/{number // 1000:05d}/{number:08d}")


def _item(number):
    path = _path(number).as_posix()
    report = f"no report: generated by {PACKAGE}"  # every item of a report manifest has a text
    return {"patient_id": number, "ecg_id": number, "report": report, "filepath": path, "background": ""}
