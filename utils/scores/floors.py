"""What a system gets that never looks at the ECG: the constant answers a score has to be read against.

Both floors learn from the training manifest only, and the same manifest gives the same floor whatever its order.
"""

import random
from collections import Counter, defaultdict

from tqdm import tqdm

from utils.scores.caption_scores import nltk_bleu


def qa_floor(train_items):
    """Learn the QA floor: each template's most frequent training answer.

    Answers are counted as sets, as they are scored; of equally frequent ones the first in alphabetical order wins. A
    template that is not in the training items gets the most frequent answer of its question type, and an item of an
    unseen type the most frequent answer of all.

    Parameters
    ----------
    train_items : list of dict
        QA items with ``answer`` (list of str), ``template_id`` and ``question_type``.

    Returns
    -------
    callable
        item -> list of str; the item (or the prediction's row) needs ``template_id`` and ``question_type``.
    """
    by_template, by_type, overall = defaultdict(Counter), defaultdict(Counter), Counter()
    for item in train_items:
        answer = tuple(sorted(set(item["answer"])))
        for counter in (by_template[item.get("template_id")], by_type[item["question_type"]], overall):
            counter[answer] += 1
    templates, types = (
        {key: _most_frequent(counter) for key, counter in table.items()} for table in (by_template, by_type)
    )
    fallback = _most_frequent(overall) if overall else ()

    def floor(item):
        of_type = types.get(item["question_type"], fallback)
        return list(templates.get(item.get("template_id"), of_type))

    return floor


def _most_frequent(counter):
    return min(counter, key=lambda answer: (-counter[answer], answer))


def report_floor(train_reports, candidates=100, sample=200, seed=0):
    """Learn the report floor: the training report that resembles the others most.

    The rule, made to be affordable: the candidates are the most frequent distinct training reports (ties in
    alphabetical order); each is scored as the answer to a seeded sample of the training reports; the best mean of
    nltk's sentence BLEU-1 to BLEU-4 wins, the first candidate among equals.

    Parameters
    ----------
    train_reports : list of str
    candidates, sample : int
        Bounds of the two lists.

    Returns
    -------
    str
    """
    counts = Counter(report for report in train_reports if report.strip())
    if not counts:
        return ""
    ranked = sorted(counts, key=lambda report: (-counts[report], report))[:candidates]
    everything = sorted(counts.elements())
    truths = Counter(random.Random(seed).sample(everything, min(sample, len(everything))))

    def total_score(candidate):
        return sum(times * sum(nltk_bleu(candidate, truth).values()) for truth, times in truths.items())

    return max(tqdm(ranked, desc="constant report", unit="report", delay=2, leave=False), key=total_score)


def attach_floor(rows, test_items, train_items, task):
    """Write the floor's answer into each prediction row, as ``floor``: a list of str for QA, a str for reports.

    Parameters
    ----------
    rows : list of dict
        Prediction rows, changed in place; ``index`` is the item's place in ``test_items``.
    test_items, train_items : list of dict
        Manifest items.
    task : {"qa", "report"}
    """
    if task == "qa":
        floor = qa_floor(train_items)
        for row in rows:
            row["floor"] = floor(test_items[row["index"]])
    else:
        report = report_floor([item["report"] for item in train_items])
        for row in rows:
            row["floor"] = report
