"""What the tokenizer knows of its codes, as numbers: codes that draw alike waves get alike numbers.

An LLM's rows for the codes start from them (`model.code_rows`), so that it needn't learn from ECGs alone which codes
are neighbours.
"""

import numpy as np

LEVEL_WIDTH = 1.0  # of the smooth one-hot of an FSQ level, in levels
AMPLITUDE_WIDTH = 3.0  # the same of an amplitude's level; 3 levels are a third


def code_features(tokenizer):
    """Features of the waveform's codes and of the amplitudes' levels.

    Parameters
    ----------
    tokenizer : EcgTokenizer

    Returns
    -------
    codes : float32 array [n_codes, D]
        FSQ: each dimension's level as a smooth one-hot (6,6,6,6: D = 24), each residual stage in columns of its own. A
        learned codebook: its vectors.
    amplitudes : float32 array [n_scales, E]
        Smooth one-hot of the level; [0, 0] where the codes hold no amplitudes.
    """
    quantizer = tokenizer.network.quantizer
    codes = _of_levels(tokenizer.config) if tokenizer.config.quantizer == "fsq" else _of_book(quantizer)
    scales = np.arange(tokenizer.n_scales)
    return codes, _smooth_one_hot(scales, tokenizer.n_scales, AMPLITUDE_WIDTH)


def _of_levels(config):
    levels, depth = config.levels, config.residual_depth
    code = np.arange(int(np.prod(levels)))
    columns, radix = [], 1
    for count in levels:  # first dimension least significant, as in `quantizers.FSQ`
        columns.append(_smooth_one_hot(code // radix % count, count, LEVEL_WIDTH))
        radix *= count
    stage = np.concatenate(columns, axis=1)
    return np.kron(np.eye(depth, dtype=np.float32), stage)


def _of_book(quantizer):
    import torch

    with torch.no_grad():
        return quantizer.from_codes(torch.arange(quantizer.n_codes)[None])[0].cpu().numpy().astype(np.float32)


def _smooth_one_hot(values, count, width):
    """exp(-(v - k)^2 / 2 width^2) for k = 0..count-1: [len(values), count]."""
    distance = np.asarray(values)[:, None] - np.arange(count)[None, :]
    return np.exp(-0.5 * (distance / width) ** 2).astype(np.float32)
