"""Is an ECG like those that the tokenizer knows? What its codes lose of it says so.

Stage 1 leaves the level beside the weights (familiar.json): what all but one in a hundred of its validation ECGs stay
below. An ECG that loses more is one to look at before anything that is read from its codes is believed.
"""

from pathlib import Path

import numpy as np

from utils.tools import UserError, read_json, write_json

FILE = "familiar.json"
PERCENTILE = 99


def ecg_loss(tokenizer, x, codes=None):
    """What is lost of each ECG between its signal and its waveform's codes.

    Parameters
    ----------
    tokenizer : EcgTokenizer
    x : float32 array [B, 12, 5000]
        Standardised signals.
    codes : int array [B, codes_per_ecg], optional
        Their waveform's codes, where they are known already.

    Returns
    -------
    float array [B]
        PRDN in %; NaN for an ECG without signal.
    """
    codes = tokenizer.encode_standardised(x) if codes is None else codes
    recon = tokenizer.decode_standardised(codes).cpu().numpy()
    power = np.square(x, dtype=np.float64).sum((1, 2))
    error = np.square(recon - x, dtype=np.float64).sum((1, 2))
    return 100 * np.sqrt(np.divide(error, power, out=np.full(len(x), np.nan), where=power > 0))


def write_familiar_level(folder, losses):
    """Keep the level of a tokenizer beside its weights; ``losses``: PRDN in % of its validation ECGs."""
    level = float(np.percentile(losses, PERCENTILE))
    write_json(Path(folder) / FILE, {"prdn": level, "percentile": PERCENTILE, "ecgs": len(losses)})


def familiar_level(path):
    """The level, PRDN in %, of the tokenizer at ``path`` (a folder, or a best.pt in one); None where none was kept."""
    path = Path(path)
    file = (path if path.is_dir() else path.parent) / FILE
    if not file.is_file():
        return None
    kept = read_json(file)
    if not isinstance(kept, dict) or not isinstance(kept.get("prdn"), float):
        raise UserError(f"{file}: holds no level (prdn); train stage 1 again, or delete the file")
    return kept["prdn"]


def loss_lines(loss, level):
    """What to tell a user of an ECG's loss: one line, and a second one where it is unlike those the tokenizer knows."""
    if np.isnan(loss):
        return ["codes: the ECG holds no signal"]
    lines = [f"codes: {loss:.0f} % lost (PRDN)" + (f", {level:.0f} % is usual at most" if level else "")]
    if level and loss > level:
        lines.append(f"warning: this ECG is unlike those the tokenizer knows: {loss:.0f} % lost")
    return lines
