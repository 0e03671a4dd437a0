"""What a reader says of an ECG: answers with their probabilities, or that it had better say nothing; and a report.

>>> reader = load_reader()                                                   # doctest: +SKIP
>>> ecg = reader.read("ecg.dcm")                                             # doctest: +SKIP
>>> answer(reader, [ecg], ["Does this ECG show atrial fibrillation?"])       # doctest: +SKIP
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import softmax

from app.abstention import read_threshold
from app.contradictions import contradictions
from app.ecg import RATE, ecg_of, load_ecg
from app.known_questions import KnownQuestions, Match, read_known
from app.measurements import measure
from data_provider.read import SignalPolicy
from model.answering import MAX_NEW_TOKENS, AnswerModel, Exam, answer_batches, plan_exam
from model.architecture import most_positions
from model.generation import why_unshared
from utils.scores import split_answer
from utils.tools import REPOSITORY, UserError, read_json

SHIPPED = REPOSITORY / "model/pretrained"
DISCLAIMER = "For research. Not a medical device."
SHOWN = 4  # alternatives of an answer that are worth telling


@dataclass(frozen=True)
class Reader:
    """A checkpoint ready to be asked, with all that goes with it.

    Attributes
    ----------
    name : str
    model : AnswerModel
    tokenizer : EcgTokenizer
    policy : SignalPolicy
        How its ECGs were made into signals.
    tasks : tuple of {"qa", "report"}
        What it has learned.
    known : KnownQuestions or None
        The questions of its training; None where they weren't kept.
    threshold : float or None
        Answers less probable than this are withheld; None where none was measured.
    level : float or None
        `familiar_level` of the tokenizer.
    max_new_tokens : int
        Longest generation; 0 is the exam's.
    report : Reader or None
        Another checkpoint that writes the reports.
    """

    name: str
    model: AnswerModel
    tokenizer: object
    policy: SignalPolicy
    tasks: tuple
    known: KnownQuestions | None
    threshold: float | None
    level: float | None
    max_new_tokens: int = 0
    report: object = None

    def read(self, path, **how):
        """The `Ecg` of a file; ``how`` as in `app.ecg.load_ecg`."""
        return load_ecg(path, self.tokenizer, self.policy, self.level, **how)

    def encode(self, record, window=0):
        """The `Ecg` of a record that was read already."""
        return ecg_of(record, self.tokenizer, self.policy, self.level, window)

    @cached_property
    def standard_questions(self):
        """What is asked where nobody asks anything: its open questions."""
        return self.known.standard() if self.known else []


@dataclass(frozen=True)
class Answer:
    """What a reader says to a question.

    Attributes
    ----------
    question : str
        As it was asked.
    asked_as : str
        As the reader knows it.
    answer : list of str or None
        None where the question is unknown to it (a withheld answer is there, marked by ``abstained``).
    probability : float or None
        Of the answer: among its alternatives, or, of a generated one, of the text.
    alternatives : list of (list of str, float)
        The other answers that the question is open to, the likeliest first.
    abstained : bool
        The probability is below the reader's threshold: the answer is not to be believed.
    contradiction : str
        What was measured in the ECG against the answer; "" where nothing was.
    unknown : bool
        The reader was not trained on questions like this.
    """

    question: str
    asked_as: str
    answer: list | None
    probability: float | None
    alternatives: list
    abstained: bool
    contradiction: str
    unknown: bool


def load_reader(checkpoint=SHIPPED, tokenizer="", llm="tiny", device="auto", use_amp=None, policy=None, **more):
    """Load a reader once.

    Parameters
    ----------
    checkpoint : path
        What stage 3 left, or the authors' .pth.
    tokenizer : path
        Its ECG tokenizer; "" is the one in this repository.
    llm : path
        The LLM that an adapter belongs to; a whole model (TUNING=full) needs none.
    device : {"auto", "cpu", "cuda"}
    use_amp : bool, optional
        bf16 where the processor is fast at it; by default as it was trained.
    policy : SignalPolicy, optional
    more : optional
        ``known`` and ``threshold`` in place of those beside the checkpoint, ``max_new_tokens``, ``prompts``.

    Raises
    ------
    UserError
        No checkpoint there, or one of another tokenizer or LLM.
    """
    from ecg_tokenizer.codec import EcgTokenizer
    from ecg_tokenizer.familiarity import familiar_level
    from ecg_tokenizer.weights import SHIPPED as SHIPPED_TOKENIZER
    from model.agreement import adapter_facts
    from model.checkpoint_files import CARD, check_tokenizer, resolve_checkpoint
    from model.prompts import read_prompts
    from utils.machine import pick_device

    checkpoint, tokenizer = resolve_checkpoint(checkpoint), tokenizer or SHIPPED_TOKENIZER
    device = pick_device(device)
    ecg_tokenizer = EcgTokenizer.from_pretrained(tokenizer, device=device)
    card = read_json(checkpoint / CARD) if checkpoint.is_dir() else {}
    facts, trained = adapter_facts(checkpoint), card.get("settings", {})
    check_tokenizer(checkpoint, ecg_tokenizer.fingerprint)
    use_amp = trained.get("USE_AMP", True) if use_amp is None else use_amp
    prompts = more.get("prompts") or facts.get("PROMPTS") or read_prompts()
    tasks = facts.get("TASKTYPE", "qa")
    own = checkpoint if checkpoint.is_dir() else checkpoint.parent
    return Reader(
        name=str(checkpoint),
        model=_answer_model(checkpoint, llm, ecg_tokenizer, device, use_amp, prompts),
        tokenizer=ecg_tokenizer,
        policy=policy or SignalPolicy(lead_order=facts.get("LEAD_ORDER", "name")),
        tasks=(tasks,) if isinstance(tasks, str) else tuple(tasks),
        known=more.get("known") or read_known(own),
        threshold=more["threshold"] if more.get("threshold") is not None else read_threshold(own),
        level=familiar_level(tokenizer),
        max_new_tokens=more.get("max_new_tokens", 0),
    )


def _answer_model(checkpoint, llm, ecg_tokenizer, device, use_amp, prompts):
    from model.checkpoint_files import check_fits, is_whole
    from model.checkpoints import load_model
    from model.generation import merge_adapter
    from utils.machine import pick_dtype

    if not is_whole(checkpoint):
        check_fits(checkpoint, ecg_tokenizer.fingerprint, llm)
    alphabets = {"n_codes": ecg_tokenizer.n_codes, "n_scales": ecg_tokenizer.n_scales}
    model, words, vocabulary = load_model(checkpoint, llm, **alphabets, dtype=pick_dtype(use_amp, device))
    return AnswerModel(merge_adapter(model.to(device).eval()), words, vocabulary, prompts)


def answer(reader, ecgs, questions, free=False, likelihood=True, measured=None):
    """Ask a reader.

    Parameters
    ----------
    reader : Reader
    ecgs : list of Ecg
        One, or the two that the questions compare.
    questions : list of str
    free : bool
        Also answer questions unlike those of its training, with what the LLM writes.
    likelihood : bool
        Answer known questions with the likeliest of their candidates, not with what the LLM writes.
    measured : Measurements, optional
        Of the first ECG, where they are known already.

    Returns
    -------
    list of Answer
        In the order of the questions.
    """
    if "qa" not in reader.tasks:
        raise UserError(f"{reader.name}: was trained to write reports, not to answer questions")
    if not 1 <= len(ecgs) <= 2:
        raise UserError(f"a question is about one ECG or two, not {len(ecgs)}")
    if measured is None and len(ecgs) == 1:
        measured = measure(ecgs[0].signal, RATE)
    matches = [_match(reader, question, len(ecgs)) for question in questions]
    compared, written = {}, {}
    for number, (question, match) in enumerate(zip(questions, matches, strict=True)):
        if match.known and match.item["question_type"]:
            (compared if likelihood else written)[number] = match.item
        elif match.known or free:
            written[number] = {**match.item, "question": question, "attribute": None}
    said = _likeliest(reader, compared, ecgs) | _written(reader, written, ecgs)
    return [
        _judged(reader, question, match, said.get(number), measured)
        for number, (question, match) in enumerate(zip(questions, matches, strict=True))
    ]


def write_report(reader, ecg):
    """The report that a reader writes of an ECG; "" where it has not learned to."""
    if "report" not in reader.tasks:
        return write_report(reader.report, ecg) if reader.report else ""
    return _ask(reader, {0: {"report": "", "filepath": "0"}}, [ecg], "report")[0].strip()


def _match(reader, question, ecgs):
    """The known question nearest to one; the question itself where nobody knows what the reader was trained on."""
    known = reader.known and reader.known.about(ecgs)
    if known:
        return known.match(question)
    if reader.known:  # it never compared ECGs, or never looked at one alone
        return Match(_bare(question), 0.0, False)
    return Match(_bare(question), 0.0, True)


def _bare(question):
    return {"question": question, "question_type": "", "attribute_type": "", "template_id": None, "attribute": None}


def _likeliest(reader, items, ecgs):
    """Number -> [(answer, probability), ...], the likeliest first, for questions whose candidates are known."""
    candidates = reader.known.candidates if items else None
    found = {}
    for number, values in _ask(reader, items, ecgs, "qa", candidates).items():
        share = softmax(np.array(values))
        order = np.argsort(-share, kind="stable")
        answers = candidates(items[number])
        found[number] = [(answers[place], float(share[place])) for place in order]
    return found


def _written(reader, items, ecgs):
    """Number -> [(answer, probability)] of what the LLM writes, its probability that of the text."""
    texts = _ask(reader, items, ecgs, "qa")
    likely = {}
    if texts and not why_unshared(reader.model.model, most_positions(reader.model.model)):
        likely = _ask(reader, items, ecgs, "qa", lambda item: [[texts[item["number"]]]])
    return {
        number: [(split_answer(text), math.exp(likely[number][0]) if number in likely else None)]
        for number, text in texts.items()
    }


def _ask(reader, items, ecgs, task, candidates=None):
    """What `answer_batches` gives for each item: the same as in an exam."""
    if not items:
        return {}
    paths = [str(place) for place in range(len(ecgs))]
    key = "filepath" if task == "report" else "ecg_path"
    items = {
        number: {**item, key: paths[0] if task == "report" else paths, "number": number}
        for number, item in items.items()
    }
    most = reader.max_new_tokens or MAX_NEW_TOKENS[task]
    exam = Exam(items, task, len(items), most, candidates)
    plan = plan_exam(reader.model, exam, reader.tokenizer.row_length)
    batches = answer_batches(reader.model, exam, plan, plan.batches, lambda path: ecgs[int(path)].codes)
    return {number: said for batch in batches for number, said in batch}


def _judged(reader, question, match, said, measured):
    """The `Answer` to a question from what was said to it, against the threshold and against what was measured."""
    if said is None:
        return Answer(question, match.item["question"], None, None, [], False, "", True)
    (best, probability), *others = said
    withheld = probability is not None and reader.threshold is not None and probability < reader.threshold
    against = contradictions(match.item, best, measured) if measured else []
    asked = match.item["question"] if match.known else question
    return Answer(question, asked, best, probability, others[:SHOWN], withheld, "; ".join(against), not match.known)
