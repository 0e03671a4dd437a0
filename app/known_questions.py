"""Which questions does a reader know? Those of its training, and what says the same in other words.

A reader answers anything, and what it says to a question unlike those of its training is worth nothing. So a question
is compared with all that it was trained on: by the pieces of its words that ask for something, once the words that any
question may have are left out.

python -m app.known_questions TRAIN_MANIFEST --out CHECKPOINT/questions.json
"""

import argparse
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path

import numpy as np

from data_provider.manifests import read_manifest
from model.candidates import candidate_rule
from utils.tools import UserError, entry_point, read_json, write_json

FILE = "questions.json"
ALIKE = 0.8  # tried on tests/app/questions_dev.json; what it does on other questions is in docs/asking.md
FIELDS = ("question", "question_type", "attribute_type", "template_id", "attribute")
# Words that any question about an ECG may have: they don't say what it is about.
FRAME = frozenset(
    """a about according an any are as at be been being by can could did do does ecg ekg electrocardiogram exist
    exhibit exhibits fit fits following for found from give given has have here how i identify identified in indicate
    indicated indicates indicating into is it its look me name note noted observe observed of on or our patient
    patients person present presence reader reading record recording reveal reveals saw say see seen shall show showing
    shown shows sign signs so some suffer suffers suggest suggests tell that the there these they this to trace tracing
    us visible was we what whether which will with would you evidence evident detect detected display displayed displays
    consistent belong belongs describe describes compatible contain contains have list correspond corresponds two
    heart my make made 12 twelve""".split()
)
SHORT = {  # as they are written in practice
    "af": "atrial fibrillation",
    "lbbb": "left bundle branch block",
    "rbbb": "right bundle branch block",
    "lafb": "left anterior fascicular block",
    "lpfb": "left posterior fascicular block",
    "lvh": "left ventricular hypertrophy",
    "mi": "myocardial infarction",
    "stemi": "st elevation myocardial infarction",
    "lad": "left axis deviation",
    "rad": "right axis deviation",
    "pvc": "ventricular premature complex",
    "pvcs": "ventricular premature complex",
    "pac": "atrial premature complex",
    "pacs": "atrial premature complex",
    "1avb": "first degree av block",
    "nsr": "sinus rhythm",
    "infarct": "infarction",
    "infarctions": "infarction",
    "diagnosis": "diagnoses",
    "1st": "first",
}


@dataclass(frozen=True)
class Match:
    """The known question that is nearest to one that was asked.

    Attributes
    ----------
    item : dict
        As in a manifest, without answer and ECG.
    similarity : float
        1 where both say the same.
    known : bool
        Whether they are alike enough for its answer to be one to what was asked.
    """

    item: dict
    similarity: float
    known: bool


@dataclass(frozen=True)
class KnownQuestions:
    """The questions of a reader's training.

    Attributes
    ----------
    items : list of dict
        A different question each, with ``answers``: list of [answer items, how often].
    """

    items: list

    @cached_property
    def candidates(self):
        """The exam's rule (`model.candidates`): an item -> the answers that it is open to."""
        train = [
            _asked(item) | {"answer": answer}
            for item in self.items
            for answer, count in item["answers"]
            for _ in range(count)
        ]
        return candidate_rule(train)

    def about(self, ecgs):
        """Those about one ECG, or those that compare two; None where there are none."""
        return self._single if ecgs == 1 else self._comparisons

    @cached_property
    def _single(self):
        return self._of([item for item in self.items if not item["question_type"].startswith("comparison")])

    @cached_property
    def _comparisons(self):
        return self._of([item for item in self.items if item["question_type"].startswith("comparison")])

    def _of(self, items):
        return KnownQuestions(items) if items else None

    def match(self, question):
        """The nearest known question: a `Match`."""
        same = self._by_text.get(_normal(question))
        if same is not None:
            return Match(_asked(same), 1.0, True)
        words = content(question)
        near = self._index.nearest(words)
        kinds = _kinds(question)
        alike = [
            (place, cosine)
            for place, cosine in near
            if cosine >= ALIKE
            and _covers(self._texts[place][0], words)
            and _may_mean(self._texts[place][1], words, kinds)
        ]
        place, similarity = (alike or near)[0]
        return Match(_asked(self._texts[place][1]), similarity, bool(alike))

    def standard(self, most=8):
        """What to ask where nobody asks anything: the open questions, then those to be answered by yes or no.

        Of each kind those of which the training had most.
        """

        def often(kind):
            chosen = [item for item in self.items if item["question_type"] == kind]
            return sorted(chosen, key=lambda item: -sum(count for _, count in item["answers"]))

        chosen = often("single-query")[:most]
        chosen += often("single-verify")[: max(0, most + most // 2 - len(chosen))]
        return [item["question"] for item in chosen]

    @cached_property
    def _by_text(self):
        return {_normal(item["question"]): item for item in self.items}

    @cached_property
    def _texts(self):
        """What each question is about, as (text, item): its own words, and the bare findings that it names; of an open
        one also what it asks for, where no other asks for it too."""
        texts = [(content(item["question"]), item) for item in self.items]
        texts += [(content(" ".join(item["attribute"])), item) for item in self.items if item.get("attribute")]
        open_ones = [item for item in self.items if "query" in item["question_type"]]
        asked_for = Counter(item["attribute_type"] for item in open_ones)
        alone = [item for item in open_ones if asked_for[item["attribute_type"]] == 1]
        return texts + [(content(item["attribute_type"].replace("_", " ")), item) for item in alone]

    @cached_property
    def _index(self):
        return _Index([text for text, _ in self._texts])


class _Index:
    """Texts by the pieces of their words (TF-IDF); pieces that no text has count against a question."""

    def __init__(self, texts):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.tfidf = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False)
        self.rows = self.tfidf.fit_transform(texts)
        self.pieces = self.tfidf.build_analyzer()

    def nearest(self, text, most=10):
        """The nearest texts: list of (place, cosine), the nearest first."""
        counts, known, idf = Counter(self.pieces(text)), self.tfidf.vocabulary_, self.tfidf.idf_
        rarity = {piece: idf[known[piece]] if piece in known else idf.max() for piece in counts}
        weights = {piece: count * rarity[piece] for piece, count in counts.items()}
        norm = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        vector = np.zeros(len(idf))
        for piece in weights.keys() & known.keys():
            vector[known[piece]] = weights[piece] / norm
        cosines = self.rows @ vector
        return [(int(place), float(min(1.0, cosines[place]))) for place in np.argsort(-cosines, kind="stable")[:most]]


def content(question):
    """What a question is about: its words without those of any question, abbreviations written out."""
    text = re.sub(r"\ba-?fib\b", "atrial fibrillation", question.lower())
    words = " ".join(SHORT.get(word, word) for word in re.findall(r"[a-z0-9]+", text)).split()
    return " ".join(word for word in words if word not in FRAME)


def _kinds(question):
    """The kinds of question that one may be by its first word: open ones are not to be answered by yes or no."""
    first = (question.lower().split() or [""])[0]
    if first in ("what", "which", "how", "tell", "list", "name"):
        return "query", "choose"
    yes_no = ("is", "are", "was", "were", "does", "do", "did", "can", "could", "would", "has", "have", "any", "will")
    return ("verify", "choose") if first in yes_no else ("verify", "choose", "query")


def _may_mean(item, words, kinds):
    """Whether a question of these kinds may mean an item; one between two findings has to name both."""
    kind = item["question_type"]
    both = "choose" not in kind or _covers(words, content(" ".join(item.get("attribute") or [])))
    return both and any(one in kind for one in kinds)


def _covers(text, words):
    """Whether each of the words is in the text, but for its ending or a slip of the pen."""
    there = text.split()
    return all(any(_same(word, other) for other in there) for word in words.split())


def _same(word, other):
    return word == other or (word[:2] == other[:2] and SequenceMatcher(None, word, other).ratio() >= 0.8)


def _normal(question):
    return re.sub(r"[\W_]+", " ", question.lower()).strip()


def _asked(item):
    return {key: item.get(key) for key in FIELDS}


def questions_of(train_items):
    """The different questions of a training manifest, with their answers and how often each was given."""
    answers, found = defaultdict(Counter), {}
    for item in train_items:
        key = repr([item.get(field) for field in FIELDS])
        found.setdefault(key, item)
        answers[key][tuple(item["answer"])] += 1
    return [
        _asked(item) | {"answers": [[list(answer), count] for answer, count in sorted(answers[key].items())]}
        for key, item in found.items()
    ]


def read_known(folder):
    """The `KnownQuestions` beside a checkpoint; None where none were kept."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    items = read_json(path)
    whole = isinstance(items, list) and all(isinstance(one, dict) for one in items)
    if not whole or not all(one.get("question") and one.get("answers") for one in items):
        raise UserError(f"{path}: not a list of questions with answers; python -m app.known_questions makes it")
    return KnownQuestions(items)


@entry_point
def main(argv):
    """Keep the questions of a training manifest beside a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m app.known_questions", description=main.__doc__)
    parser.add_argument("manifest", nargs="+", help="QA training manifest(s), as template_train_background.json")
    parser.add_argument("--out", required=True, metavar="F.json", help=f"CHECKPOINT/{FILE}")
    options = parser.parse_args(argv)
    items = questions_of([item for path in options.manifest for item in read_manifest(path, "qa")])
    write_json(options.out, items, indent=None)
    print(f"{len(items)} questions -> {options.out}")


if __name__ == "__main__":
    main()
