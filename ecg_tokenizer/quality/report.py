"""The codec's report: how well ECGs survive a tokenizer, and what its codes cost.

python -m ecg_tokenizer.quality --checkpoint P --manifest M --root DIR --out DIR
python -m ecg_tokenizer.quality --compare A B ...     puts tokenizers side by side on the same records

Writes quality.json and quality.html (self-contained) to DIR.
"""

from pathlib import Path

import numpy as np

from data_provider.read import RecordError, load_signal
from utils.tools import UserError

BATCH = 32
RESAMPLES = 2000  # of the bootstrap behind the confidence intervals
SOURCE_MEANS = ("prdn", "prdn_band", "error_below", "error_above", "heart_rate_bpm")
PAIRED = (
    *("prdn", "prdn_band", "prd", "snr_db", "mse_mv2", "mse_standardised", "correlation"),
    *("heart_rate_bpm", "r_peak_ms", "beats_kept", "qrs_amplitude_mv", "qrs_duration_ms", "st_level_mv"),
)


def read_ecgs(root, paths, policy):
    """Signals in mV float32 [N, 12, 5000], standardised ones, the paths of the rows, and path -> reason of bad ones."""
    from tqdm import tqdm

    millivolts, standardised, good, bad = [], [], [], {}
    for path in tqdm(paths, desc="reading ECGs", unit="ECG"):
        try:
            x, mean, std = load_signal(Path(root) / path, policy)
        except RecordError as error:
            bad[path] = error.fault
            continue
        millivolts.append((x * std[:, None] + mean[:, None]).astype(np.float32))
        standardised.append(x)
        good.append(path)
    if not good:
        raise UserError(f"none of the {len(paths)} records can be read; the first: {paths[0]}: {bad[paths[0]]}")
    return np.stack(millivolts), np.stack(standardised), good, bad


def encode_decode(tokenizer, x):
    """Codes [N, F], their values [N, F, D], and reconstructions [N, 12, 5000] of standardised ECGs."""
    codes, values, recons = [], [], []
    for start in range(0, len(x), BATCH):
        batch = tokenizer.encode_standardised(x[start : start + BATCH])
        codes.append(batch.cpu().numpy())
        values.append(tokenizer.network.quantizer.from_codes(batch).detach().cpu().numpy())
        recons.append(tokenizer.decode_standardised(batch).cpu().numpy())
    return np.concatenate(codes), np.concatenate(values), np.concatenate(recons)


def evaluate(checkpoint, millivolts, x, labelled, device):
    """All figures of one tokenizer on these ECGs: (figures, figures of each record, reconstructions in mV, codes)."""
    from tqdm import tqdm

    from ecg_tokenizer.amplitude import scale_levels, scales_of
    from ecg_tokenizer.codec import EcgTokenizer, config_to_json
    from ecg_tokenizer.quality.measures import beat_errors, code_figures, signal_errors, summarise
    from ecg_tokenizer.quality.probe import probe

    tokenizer = EcgTokenizer.from_pretrained(checkpoint, device)
    codes, values, recon = encode_decode(tokenizer, x)
    # No codes hold a lead's mean, and not all its deviation: what they lack is taken from the record.
    mean, std, levels = millivolts.mean(2, keepdims=True), millivolts.std(2, keepdims=True), None
    if tokenizer.n_scales:
        levels = scale_levels(std[..., 0])
        std = scales_of(levels)[..., None]
    recon_mv = recon * std + mean
    errors, beats = [], []
    for before, after in zip(tqdm(millivolts, desc="evaluating", unit="ECG"), recon_mv, strict=True):
        errors.append(signal_errors(before.astype(float), after.astype(float)))
        beats.append(beat_errors(before.astype(float), after.astype(float)))
    figures = {
        "tokenizer": str(checkpoint),
        "fingerprint": tokenizer.fingerprint,
        "config": config_to_json(tokenizer.config),
        "parameters": sum(p.numel() for p in tokenizer.network.parameters()),
        "amplitude": "of the record, not of the codes" if levels is None else "of the codes; baseline of the record",
        "codes": code_figures(codes, tokenizer.n_codes, levels, tokenizer.config.residual_depth),
        **summarise(errors, beats),
    }
    if labelled is not None:
        deviations, coded = millivolts.std(2), None if levels is None else scales_of(levels)
        figures["probe"] = probe(x, recon, values, codes, tokenizer.n_codes, labelled, deviations, coded)
    else:
        figures["probe"] = {"skipped": "the root has no PTB-XL tables with these records"}
    records = [{**b, **e} for e, b in zip(errors, beats, strict=True)]
    return figures, records, recon_mv, codes


def by_source(sources, records, codes, figures):
    """The main figures of one tokenizer for each source of ECGs.

    Parameters
    ----------
    sources : list of str
        Of each ECG.
    records : list of dict
        Figures of each ECG, as `evaluate` gives them.
    codes : int array [N, F]
    figures : dict
        Of the tokenizer over all ECGs.

    Returns
    -------
    dict
        Source -> ecgs, prdn, prdn_worst, prdn_band, error_below, error_above (means but for the worst), beats_kept
        (share), heart_rate_bpm (mean), r_peak_ms (median), codes_used, perplexity. A measure that no ECG has is left
        out.
    """
    from ecg_tokenizer.quality.measures import code_figures

    found = {}
    for source in dict.fromkeys(sources):
        rows = [row for row, of_ecg in enumerate(sources) if of_ecg == source]
        parts = [records[row] for row in rows]
        use = code_figures(codes[rows], figures["codes"]["n_codes"], depth=figures["config"].get("residual_depth", 1))
        found[source] = {"ecgs": len(rows), "prdn_worst": max(part["prdn"] for part in parts)}
        for key, middle in (*((key, np.mean) for key in SOURCE_MEANS), ("r_peak_ms", np.median)):
            values = [part[key] for part in parts if key in part]
            if values:
                found[source][key] = float(middle(values))
        counted = sum(part["beats"] for part in parts if "beats_kept" in part)
        if counted:
            found[source]["beats_kept"] = sum(part.get("beats_kept", 0) for part in parts) / counted
        found[source] |= {key: use[key] for key in ("codes_used", "perplexity")}
    return found


def paired_differences(first, second):
    """Second minus first, record by record: mean and 95 % bootstrap interval of each measure (beats_kept: a count)."""
    rng, differences = np.random.default_rng(0), {}
    for key in PAIRED:
        pairs = [(a[key], b[key]) for a, b in zip(first, second, strict=True) if key in a and key in b]
        if len(pairs) < 2:
            continue
        difference = np.diff(np.array(pairs), axis=1)[:, 0]
        means = rng.choice(difference, (RESAMPLES, len(difference))).mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        differences[key] = {
            "mean": float(difference.mean()),
            "low": float(low),
            "high": float(high),
            "records": len(difference),
        }
    return differences


def find_labels(root, paths):
    """(patient, superclasses) of each record below ``root``; None unless all have them."""
    from ecg_tokenizer.quality.probe import superclasses

    labels = superclasses(root)
    if labels is None or not all(path in labels for path in paths):
        return None
    return [labels[path] for path in paths]
