"""Scores of generated texts, each by itself: nltk's BLEU and METEOR, and the ``rouge`` package's.

Two families that bear the same names and must never be mixed. The published system reports nltk's sentence BLEU and
METEOR on words as they stand between blanks (case counts in BLEU and ROUGE, not in METEOR), averaged over the texts.
The wider captioning field reports pycocoevalcap's (`coco_scores.py`): corpus BLEU, METEOR 1.5 (another formula),
ROUGE-L and CIDEr, all after the Penn Treebank tokenizer (lower case, no punctuation). On one pair of texts METEOR may
be 0.85 in the first family and 0.41 in the second.
"""

import functools
import multiprocessing
import os
import sys

import numpy as np
from tqdm import tqdm

from utils.tools import REPOSITORY, UserError

WORDNET = REPOSITORY / "corpora" / "wordnet.zip"
BLEU_WEIGHTS = {"bleu1": (1,), "bleu2": (0.5, 0.5), "bleu3": (0.33, 0.33, 0.33), "bleu4": (0.25, 0.25, 0.25, 0.25)}
ROUGES = ("rouge-1", "rouge-2", "rouge-l")
FEW_PAIRS = 2000  # below this, starting processes costs more than it saves


def scores_of_pairs(score, pairs, description):
    """``score(prediction, reference) -> dict`` of numbers for each distinct pair, by all processor cores where the
    pairs are many: pair -> dict."""
    pairs = list(dict.fromkeys(pairs))
    bar = {"desc": description, "unit": "pair", "delay": 2, "leave": False, "total": len(pairs)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(pairs) < FEW_PAIRS or cores == 1:
        return {pair: score(*pair) for pair in tqdm(pairs, **bar)}
    with multiprocessing.get_context("spawn").Pool(min(cores, 16)) as pool:
        scored = pool.imap(functools.partial(_score_pair, score), pairs, chunksize=200)
        return dict(zip(pairs, tqdm(scored, **bar), strict=True))


def _score_pair(score, pair):
    return score(*pair)


def mean_over_items(score, predictions, references, description):
    """Mean of ``score(prediction, reference) -> dict`` of numbers over the items."""
    pairs = list(zip(predictions, references, strict=True))
    scored = scores_of_pairs(score, pairs, description)
    names = scored[pairs[0]]
    return {name: float(np.mean([scored[pair][name] for pair in pairs])) for name in names}


def nltk_scores(predictions, references):
    """Mean sentence BLEU (smoothing method 1 of Chen and Cherry 2014) and METEOR of nltk.

    Parameters
    ----------
    predictions, references : list of str
        Of one length, at least one.

    Returns
    -------
    dict
        ``bleu1`` .. ``bleu4`` and ``meteor``, each 0 to 1.
    """
    _find_wordnet()
    return mean_over_items(nltk_pair, predictions, references, "BLEU and METEOR (nltk)")


def nltk_pair(prediction, reference):
    """nltk's scores of one pair, see `nltk_scores`."""
    from nltk.translate.meteor_score import meteor_score

    stemmer, wordnet = _remembering_words()
    texts = [reference.split()], prediction.split()
    return {**nltk_bleu(prediction, reference), "meteor": float(meteor_score(*texts, stemmer=stemmer, wordnet=wordnet))}


@functools.cache
def _remembering_words():
    """nltk's stemmer and WordNet, each word looked up once: reports repeat their words, and a look-up costs most."""
    from nltk.corpus import wordnet
    from nltk.stem.porter import PorterStemmer

    _find_wordnet()

    class Remembering:
        stem = staticmethod(functools.lru_cache(2**16)(PorterStemmer().stem))
        synsets = staticmethod(functools.lru_cache(2**16)(wordnet.synsets))

    return Remembering, Remembering


def nltk_bleu(prediction, reference):
    """nltk's sentence BLEU of one pair, ``bleu1`` .. ``bleu4``."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    weights, smooth = list(BLEU_WEIGHTS.values()), SmoothingFunction().method1
    scores = sentence_bleu([reference.split()], prediction.split(), weights=weights, smoothing_function=smooth)
    return dict(zip(BLEU_WEIGHTS, map(float, scores), strict=True))


def _find_wordnet():
    """Let nltk find the repository's WordNet, and before any other."""
    import nltk

    if not WORDNET.is_file():
        raise UserError(f"{WORDNET}: WordNet is missing, METEOR needs it; the file is part of the repository")
    if str(REPOSITORY) not in nltk.data.path:
        nltk.data.path.insert(0, str(REPOSITORY))


def rouge_scores(predictions, references):
    """Mean ROUGE-1, -2 and -L of the ``rouge`` package: ``{"rouge-1": {"p", "r", "f"}, ...}``, each 0 to 1."""
    flat = mean_over_items(rouge_pair, predictions, references, "ROUGE")
    return {name: {part: flat[f"{name} {part}"] for part in "prf"} for name in ROUGES}


def rouge_pair(prediction, reference):
    """ROUGE of one pair as ``{"rouge-1 p": ...}``; a text without a word between its periods scores 0."""
    from rouge import Rouge

    if not (prediction.replace(".", "").strip() and reference.replace(".", "").strip()):
        return {f"{name} {part}": 0.0 for name in ROUGES for part in "prf"}
    # The package follows a common subsequence word by word, by recursion: one looping text would end the scoring.
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 2 * (len(prediction.split()) + len(reference.split())))
    try:
        scores = Rouge().get_scores(prediction, reference)[0]
    finally:
        sys.setrecursionlimit(depth)
    return {f"{name} {part}": float(scores[name][part]) for name in ROUGES for part in "prf"}
