"""Questions and answers from annotations, in ECG-QA's form, balanced so that no constant answer does well.

Every question is asked in groups: one finding, one pair of findings, one open question (see `balance`).
"""

import functools
import itertools
import random
from collections import Counter, defaultdict

from data_provider.prepare.annotations import FINDINGS
from data_provider.prepare.balance import Findings, Group, balance
from data_provider.prepare.inventory import Items

MOST_FREQUENT = 0.6  # no answer of a verify template may exceed this share

VERIFY = {
    "scp_code": (101, "Would a reader of this ECG note {}?"),
    "scp_class": (102, "Does this ECG belong to the group {}?"),
    "heart_axis": (103, "Is {} the finding on the electrical axis of this ECG?"),
    "stage_of_infarction": (104, "Does this ECG fit the {}?"),
    "noise": (105, "Is this recording disturbed by {}?"),
    "extra_systole": (106, "Can {} be seen in this ECG?"),
}
CHOOSE = {
    "scp_code": (111, "Which of the two would a reader of this ECG note, {} or {}?"),
    "scp_class": (112, "To which of the two groups does this ECG belong, {} or {}?"),
    "heart_axis": (113, "Which describes the electrical axis of this ECG, {} or {}?"),
    "stage_of_infarction": (114, "Which stage does this ECG fit, {} or {}?"),
    "noise": (115, "By which of the two is this recording disturbed, {} or {}?"),
    "extra_systole": (116, "Which of the two can be seen in this ECG, {} or {}?"),
}
QUERY = {
    "rhythm": (121, "What is the rhythm of this ECG?"),
    "diagnostic": (122, "What are the diagnoses of this ECG?"),
    "form": (123, "Which changes of form does this ECG show?"),
    "scp_class": (124, "To which groups of diagnoses does this ECG belong?"),
    "heart_axis": (125, "How is the electrical axis of this ECG?"),
    "stage_of_infarction": (126, "Which stage of myocardial infarction does this ECG fit?"),
    "noise": (127, "Which disturbances does this recording have?"),
    "extra_systole": (128, "Which kinds of extra beats can be seen in this ECG?"),
}
NONE = "none"


def make_questions(ecgs, statements, questions_per_ecg=12, min_positives=5, seed=0):
    """Questions for every split.

    Parameters
    ----------
    ecgs : list of Ecg
        With `split`, `ecg_id`, `path`, `background` and `found` (see `data_provider.prepare.annotations.annotate`).
    statements : Statements
    questions_per_ecg : int
        No ECG is asked more than this.
    min_positives : int
        Findings with fewer ECGs in the training split are not asked about.
    seed : int
        The same seed and ECGs give the same questions.

    Returns
    -------
    items : dict
        Split -> QA items.
    not_asked : int
        How many more could have been asked: left out for balance, or as the ECG is asked enough.
    """
    by_split = defaultdict(list)
    for ecg in sorted(ecgs, key=lambda ecg: ecg.ecg_id):
        by_split[ecg.split].append(ecg)
    asked = _asked_findings(by_split["train"], statements, min_positives)
    items, question_ids, not_asked = {}, {}, 0
    for split in ("train", "valid", "test"):
        chosen = []
        for question_type, limit in _limits(questions_per_ecg).items():
            groups = _groups(question_type, by_split[split], asked, statements)
            balanced, left_out = balance(groups, limit, random.Random(f"{seed} {split} {question_type}"))
            chosen += [(question_type, *entry) for entry in balanced]
            not_asked += left_out
        for _, group, *_ in chosen:
            question_ids.setdefault(group.text, len(question_ids))
        items[split] = Items(functools.partial(_items, chosen, question_ids))
        check_balance(items[split])
    return items, not_asked


def _limits(questions_per_ecg):
    """Question type -> most questions about one ECG: half of them verify, a quarter choose, the others query."""
    verify = min(questions_per_ecg, max(1, questions_per_ecg // 2))
    choose = min(questions_per_ecg - verify, max(1, questions_per_ecg // 4))
    return {"single-verify": verify, "single-choose": choose, "single-query": questions_per_ecg - verify - choose}


def check_balance(items, most_frequent=MOST_FREQUENT):
    """AssertionError if a constant answer wins a verify template by more than ``most_frequent``."""
    answers = defaultdict(Counter)
    for item in items:
        if item["question_type"] == "single-verify":
            answers[item["template_id"]][item["answer"][0]] += 1
    for template, count in answers.items():
        share = max(count.values()) / count.total()
        assert share <= most_frequent, f"template {template}: a constant answer is right in {share:.0%}"


def _asked_findings(train, statements, min_positives):
    """Attribute type -> findings with enough examples to learn from."""
    counts = defaultdict(Counter)
    for ecg in train:
        for kind, findings in ecg.found.items():
            if kind in VERIFY:
                counts[kind].update(name for name, state in findings.items() if state)
    return {kind: sorted(name for name, count in counts[kind].items() if count >= min_positives) for kind in VERIFY}


def _groups(question_type, ecgs, asked, statements):
    """All questions of a type that can be asked."""
    findings = Findings(ecgs, VERIFY.keys())
    if question_type == "single-verify":
        for kind, (template, wording) in VERIFY.items():
            for name in asked[kind]:
                yield Group(template, wording.format(name), kind, [name], **findings.verify(kind, name))
    elif question_type == "single-choose":
        for kind, (template, wording) in CHOOSE.items():
            for pair in _pairs(kind, asked, statements):
                yield Group(template, wording.format(*pair), kind, list(pair), **findings.choose(kind, pair, NONE))
    else:
        for query, (template, wording) in QUERY.items():
            kind = "scp_code" if query in ("rhythm", "diagnostic", "form") else query
            names = set(statements.groups.get(query, {}).values()) if kind != query else FINDINGS[kind]
            known = names & set(asked[kind])
            if len(known) >= 2:
                yield Group(template, wording, kind, None, **findings.query(kind, names, known, NONE))


def _pairs(kind, asked, statements):
    """Pairs of findings that it makes sense to choose between: of the same group of statements."""
    if kind != "scp_code":
        return list(itertools.combinations(sorted(asked[kind]), 2))
    pairs = set()
    for group, codes in statements.groups.items():
        if group != "diagnostic":  # its classes are finer
            names = sorted(set(asked[kind]) & set(codes.values()))
            pairs.update(itertools.combinations(names, 2))
    return sorted(pairs)


def _items(chosen, question_ids):
    for sample_id, (question_type, group, answer, ecg) in enumerate(chosen):
        yield {
            "template_id": group.template,
            "question_id": question_ids[group.text],
            "sample_id": sample_id,
            "question_type": question_type,
            "attribute_type": "scp_code" if group.kind == "scp_class" else group.kind,
            "question": group.text,
            "answer": list(answer),
            "ecg_id": [ecg.ecg_id],
            "attribute": group.attribute,
            "ecg_path": ecg.path,
            "background": ecg.background,
        }
