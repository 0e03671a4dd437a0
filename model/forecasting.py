"""Stage 2's sequences: an ECG's codes, of which the last ones of a window are to be predicted.

Windows are cut from the waveform's codes. The leads' amplitudes, where there are any, stand before each window, and are
never to be predicted: so bits per code are those of the waveform's codes, comparable with and without amplitudes.
"""

from model.packing import Example

# Published for 313 codes: shares of the ECG that a window shows, and of it that are to be predicted.
PUBLISHED_CODES = 313
PUBLISHED_WINDOWS = ((283, 30), (142, 15), (70, 7), (35, 4), (17, 2))


def windows_for(codes_per_ecg):
    """(window, step) of the five forecasts for ECGs of so many codes; the published ones for 313.

    Other numbers of codes keep the published proportions, the longest window and step filling the ECG.
    """
    if codes_per_ecg == PUBLISHED_CODES:
        return PUBLISHED_WINDOWS
    scaled = []
    for window, step in PUBLISHED_WINDOWS:
        steps = max(1, round(step * codes_per_ecg / PUBLISHED_CODES))
        total = max(steps + 1, round((window + step) * codes_per_ecg / PUBLISHED_CODES))
        scaled.append((min(total, codes_per_ecg) - steps, steps))
    return tuple(scaled)


def forecast_examples(vocabulary, row, rng):
    """Five windows of an ECG, each at a start drawn from the multiples of its step that fit.

    Parameters
    ----------
    row : array of int, [row_length]
    rng : random.Random
    """
    amplitudes, codes = vocabulary.ecg_ids(row)
    examples = []
    for window, step in windows_for(len(codes)):
        start = rng.choice(range(0, len(codes) - window - step + 1, step))
        examples.append(_code_sequence(vocabulary, amplitudes, codes[start : start + window + step], supervised=step))
    return examples


def causal_examples(vocabulary, row, rng):
    """The whole ECG, every code of its waveform predicted from those before it; the first only from amplitudes."""
    amplitudes, codes = vocabulary.ecg_ids(row)
    return [_code_sequence(vocabulary, amplitudes, codes, supervised=len(codes) if amplitudes else len(codes) - 1)]


def _code_sequence(vocabulary, amplitudes, codes, supervised):
    before = [*vocabulary.bos, vocabulary.start, *amplitudes]
    ids = [*before, *codes, vocabulary.end, vocabulary.eos]
    first = len(before) + len(codes) - supervised
    labels = [-100] * first + codes[len(codes) - supervised :] + [-100, -100]
    return Example(ids, labels)
