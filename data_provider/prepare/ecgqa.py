"""A copy of ECG-QA's repository, whole or in part: every sample becomes a manifest item or is counted under a reason.

ECG-QA: Oh et al., NeurIPS 2023 (Datasets and Benchmarks), arXiv 2306.15681.
"""

import re
from collections import Counter
from pathlib import Path

from data_provider.prepare.inventory import SPLITS, Items
from utils.tools import UserError, read_json, sha256_file

WORDINGS = ("template", "paraphrased")
CHUNK = 10_000  # samples a file
# Until May 2024 the answers said "late", the template's classes "old": one of the two cannot be matched
BEFORE_CORRECTION, CORRECTED = "late stage of myocardial infarction", "old stage of myocardial infarction"


class EcgQa:
    """The copy for one data set.

    Parameters
    ----------
    root : str or Path
        The repository, its folder ``ecgqa``, or what is below that.
    data_set : {"ptbxl", "mimic-iv-ecg"}
    questions : {"template", "paraphrased"}
    """

    def __init__(self, root, data_set, questions="template"):
        self.questions = questions
        for folder in (Path(root) / data_set, Path(root) / "ecgqa" / data_set, Path(root) / "ecgqa", Path(root)):
            if (folder / questions).is_dir():
                self.folder = folder / questions
                break
        else:
            raise UserError(f"{root}: no copy of ECG-QA here (looked for ecgqa/{data_set}/{questions})")
        self.chunks = {split: _chunks(self.folder, split) for split in SPLITS}
        if not any(self.chunks.values()):
            raise UserError(f"{self.folder}: holds no chunks (train/NNNNN.json)")
        self.corrected = set()  # samples of a copy from before the correction

    def samples(self, split, chunks=None):
        """The samples of a split (or of these files of it), one at a time."""
        for path in self.chunks[split] if chunks is None else chunks:
            samples = read_json(path)
            if not isinstance(samples, list):
                raise UserError(f"{path}: not a list of samples")
            for number, sample in enumerate(samples):
                fault = _fault(sample)
                if fault:
                    raise UserError(f"{path}: sample {number}: {fault}")
                if BEFORE_CORRECTION in sample["answer"]:
                    self.corrected.add((split, path.name, number))
                    answer = [CORRECTED if part == BEFORE_CORRECTION else part for part in sample["answer"]]
                    sample = {**sample, "answer": answer}
                yield sample

    def ecg_splits(self):
        """ecg_id -> split, from the samples of either wording and from the lists of ECGs, as far as they are there."""
        splits = {}
        for split in SPLITS:
            for folder in (self.folder.parent / wording for wording in WORDINGS):
                for sample in self.samples(split, _chunks(folder, split)):
                    splits.update(dict.fromkeys(sample["ecg_id"], split))
            for path in self.folder.parent.glob(f"{split}_ecgs.*"):
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                    number = re.search(r"\d+\s*$", line)
                    if number:
                        splits.setdefault(int(number[0]), split)
        return splits

    def missing_chunks(self):
        """Split -> names of the files that must have been before the last one that is there."""
        missing = {}
        for split, paths in self.chunks.items():
            there = {_number(path) for path in paths}
            expected = range(0, max(there, default=0), CHUNK)
            missing[split] = [f"{number:05d}" for number in expected if number not in there]
        return missing

    def hashes(self):
        """File (relative to the copy) -> SHA-256."""
        paths = [path for split in SPLITS for path in self.chunks[split]]
        return {f"ecgqa/{path.relative_to(self.folder.parent)}": sha256_file(path) for path in paths}


def map_samples(ecgqa_source, split, index):
    """Manifest items of a split's samples whose ECGs can be used.

    Returns
    -------
    items : Items
        ECG-QA's fields with `ecg_path` (a list for two ECGs) and `background`.
    counts : Counter
        Question type -> samples in the copy.
    left_out : Counter
        Reason -> samples.
    """
    counts, left_out = Counter(), Counter()
    for sample in ecgqa_source.samples(split):
        counts[sample["question_type"]] += 1
        reason = _unusable(sample, index)
        if reason:
            left_out[reason] += 1
    return Items(lambda: _mapped(ecgqa_source, split, index)), counts, left_out


def _mapped(ecgqa_source, split, index):
    for sample in ecgqa_source.samples(split):
        if _unusable(sample, index):
            continue
        ecgs = [index.ecgs[ecg_id] for ecg_id in sample["ecg_id"]]
        single = len(ecgs) == 1
        path = ecgs[0].path if single else [ecg.path for ecg in ecgs]
        background = ecgs[0].background if single else _two_backgrounds(*ecgs)
        yield {**sample, "ecg_path": path, "background": background}


def _two_backgrounds(first, second):
    """Both patients before "Recording Details", where the background of a prompt ends, and both recordings after it."""
    parts = [ecg.background.partition("Recording Details:") for ecg in (first, second)]
    (patient1, _, recording1), (patient2, _, recording2) = parts
    patients = f"First ECG: {patient1.strip()} Second ECG: {patient2.strip()} " if patient1 and patient2 else ""
    return f"{patients}Recording Details: First ECG:{recording1} Second ECG:{recording2}"


def _unusable(sample, index):
    for ecg_id in sample["ecg_id"]:
        if ecg_id not in index.ecgs:
            return f"ECG {index.missing.get(ecg_id, 'not in the table')}"
    return None


def _chunks(folder, split):
    return sorted(folder.glob(f"{split}/**/*.json"), key=_number)


def _number(path):
    return int(path.stem) if path.stem.isdigit() else 0


def _fault(sample):
    if not isinstance(sample, dict):
        return "not an object"
    for field in ("question", "question_type", "attribute_type"):
        if not isinstance(sample.get(field), str):
            return f"`{field}` must be a text"
    ids, answer = sample.get("ecg_id"), sample.get("answer")
    if not isinstance(ids, list) or not 1 <= len(ids) <= 2 or not all(isinstance(ecg_id, int) for ecg_id in ids):
        return "`ecg_id` must be a list of one or two numbers"
    if not isinstance(answer, list) or not answer or not all(isinstance(part, str) for part in answer):
        return "`answer` must be a list of texts"
    return None
