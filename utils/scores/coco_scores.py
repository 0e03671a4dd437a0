"""Scores of a set of generated texts as the captioning field gives them: pycocoevalcap's BLEU, METEOR, ROUGE-L, CIDEr.

Its METEOR and tokenizer are Java programs; they are run here, so that neither can hang nor write into the package.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
from tqdm import tqdm


class JavaError(Exception):
    """Java is there but cannot do the work; the text is the reason written into the metrics."""


def coco_items(sets):
    """pycocoevalcap's scores of several sets of texts at once, since starting Java costs more than the scoring.

    Parameters
    ----------
    sets : dict
        Name -> (predictions, references), lists of str of one length.

    Returns
    -------
    dict
        Name -> (scores, parts). Scores: ``bleu1`` .. ``bleu4``, ``meteor``, ``rouge_l`` (0 to 1) and ``cider`` (0 to
        10), or ``{"skipped": reason}`` where Java is missing or fails. Parts: what each item adds to them, arrays of
        N rows: ``bleu`` and ``meteor`` are counts that are summed before a score is made of them, `figures` does it.
    """
    try:
        tokens = ptb_words({text for pair in sets.values() for texts in pair for text in texts})
        tokenised = {name: tuple([tokens[text] for text in texts] for texts in pair) for name, pair in sets.items()}
        meteor = java_meteor(tokenised)
    except JavaError as error:
        return {name: ({"skipped": str(error)}, {}) for name in sets}
    found = {}
    for name, (score, statistics) in meteor.items():
        scores, parts = _coco_without_java(*tokenised[name])
        found[name] = {**scores, "meteor": score}, {**parts, "meteor": statistics}
    return found


def _coco_without_java(predictions, references):
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    result = {number: [text] for number, text in enumerate(predictions)}
    truth = {number: [text] for number, text in enumerate(references)}
    scorer = BleuScorer(n=4)
    for prediction, reference in zip(predictions, references, strict=True):
        scorer += (prediction, [reference])
    bleu = scorer.compute_score(option="closest", verbose=0)[0]
    scores = {f"bleu{n}": float(value) for n, value in enumerate(bleu, start=1)}
    rouge_l, rouge_items = Rouge().compute_score(truth, result)
    # CIDEr's document frequencies need at least one word in the references; they stay those of all of them.
    cider, cider_items = Cider().compute_score(truth, result) if any(references) else (0.0, np.zeros(len(references)))
    counts = [[*part["correct"], *part["guess"], part["testlen"], part["reflen"][0]] for part in scorer.ctest]
    parts = {"bleu": np.array(counts, float), "rouge_l": np.array(rouge_items), "cider": np.array(cider_items)}
    return {**scores, "rouge_l": float(rouge_l), "cider": float(cider)}, parts


def ptb_words(texts):
    """Text -> its words by the Penn Treebank tokenizer, lower case, without punctuation, joined by blanks.

    pycocoevalcap's own wrapper does the same, but writes into its package's folder, which may be read-only.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    java, texts = _java(), sorted(texts)
    jar = _package_folder() / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "texts"
        # One text a line, whatever kind of line break it holds; the last line ends the list, also behind empty ones.
        lines = "".join(" ".join(text.split()) + "\n" for text in texts) + "end\n"
        source.write_bytes(lines.encode("utf-8", "replace"))  # a half character (lone surrogate) has no bytes
        command = [java, "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", str(jar)]
        command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", str(source)]
        try:
            run = subprocess.run(command, capture_output=True, timeout=120 + len(texts) / 100, check=False)
        except subprocess.TimeoutExpired as error:
            raise JavaError(f"the PTB tokenizer took more than {error.timeout:.0f} s") from error
    lines = run.stdout.decode("utf-8").split("\n")
    if run.returncode != 0 or len(lines) < len(texts) + 1:
        raise JavaError(f"the PTB tokenizer failed in Java: {_first_line(run.stderr)}")
    kept = [" ".join(word for word in line.split() if word not in PUNCTUATIONS) for line in lines]
    return dict(zip(texts, kept, strict=False))  # behind the texts: the end mark


def java_meteor(sets, timeout=None):
    """METEOR 1.5 (Denkowski and Lavie 2014) of each set of tokenised texts, by the jar that pycocoevalcap ships: name
    -> (score, counts [N, 23] that it is made of).

    One process for all sets: it reads a paraphrase table for seconds before its first answer. It answers every line
    with lines, so that neither side can wait for the other; should it stop answering, it is killed at the ``timeout``
    (in seconds; by default 2 minutes and 1/10 s a text).
    """
    from pycocoevalcap.meteor.meteor import METEOR_JAR

    count = sum(len(predictions) for predictions, _ in sets.values())
    timeout = 120 + count / 10 if timeout is None else timeout
    folder = _package_folder() / "meteor"
    command = [_java(), "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Xmx2G", "-jar", str(folder / METEOR_JAR)]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile() as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(command, cwd=folder, encoding="utf-8", **pipes)
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.start()
        try:
            known = {}
            return {name: _meteor_of_set(process, *texts, known, name) for name, texts in sets.items()}
        except (BrokenPipeError, ValueError) as error:  # it ended, or said something that is no number
            in_time = watchdog.is_alive()
            process.kill()
            process.wait()
            errors.seek(0)
            reason = _first_line(errors.read()) if in_time else f"no answer within {timeout:.0f} s"
            raise JavaError(f"METEOR failed in Java: {reason}") from error
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):  # what is still in its buffer has nobody to go to
                process.stdin.close()


def _meteor_of_set(process, predictions, references, known, description):
    """Ask for each pair's statistics (``known``: those asked before), then for the score of all of them together."""

    def ask(line, answers):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        replies = [process.stdout.readline() for _ in range(answers)]
        if not all(replies):
            raise ValueError("METEOR ended early")
        return replies[-1].strip()

    statistics = []
    pairs = zip(predictions, references, strict=True)
    title = f"METEOR 1.5 ({description})"
    for pair in tqdm(pairs, total=len(predictions), desc=title, unit="pair", delay=2, leave=False):
        if pair not in known:
            prediction, reference = (text.replace("|||", " ") for text in pair)
            known[pair] = ask(f"SCORE ||| {reference} ||| {prediction}", 1)
        statistics.append(known[pair])
    score = float(ask(" ||| ".join(["EVAL", *statistics]), len(statistics) + 1))
    counts = np.array([line.split() for line in statistics], float)
    perfect = (counts[:, 20] == 1) & (counts[:, 0:2] == counts[:, 21:23]).all(1)
    counts[perfect, 20] = 0  # as the jar does when it sums: a text that matches in one piece is not in pieces
    return score, counts


def _java():
    java = shutil.which("java")
    if java is None:
        raise JavaError("Java is missing (no `java` on PATH)")
    return java


def _package_folder():
    import pycocoevalcap

    return Path(os.path.abspath(next(iter(pycocoevalcap.__path__))))


def _first_line(errors):
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[0] if lines else "it gave no reason"
