"""Which ECGs a question is asked about, so that no constant answer does well.

In each group (one question) no answer is given more often than the next frequent one: verify questions are half yes and
half no, and no open question has an answer that is right more than half of the time.
"""

import dataclasses
from collections import Counter, defaultdict


@dataclasses.dataclass
class Group:
    """One question that can be asked about many ECGs.

    Attributes
    ----------
    template : int
    text : str
    kind : str
        ECG-QA's attribute type.
    attribute : list of str or None
    answers : dict
        Answer (tuple of names) -> ECGs.
    rest : tuple or None
        The answer of all others among ``known`` but those whose ecg_id is ``excluded``; they may be many times more
        than are needed, so they are drawn, not listed.
    known : list
    excluded : set
    """

    template: int
    text: str
    kind: str
    attribute: list | None
    answers: dict
    rest: tuple | None = None
    known: list = ()
    excluded: set = frozenset()

    def rarest(self):
        """How many ECGs the second most frequent answer has."""
        sizes = [len(ecgs) for ecgs in self.answers.values()]
        return _second([*sizes, len(self.known) - len(self.excluded)] if self.rest else sizes)


class Findings:
    """Who shows what, for one split.

    Parameters
    ----------
    ecgs : list of Ecg
    kinds : collection of str
        Attribute types that are wanted.

    Attributes
    ----------
    known : dict
        Kind -> ECGs of which that kind of finding is known.
    shown, unsure : dict
        (kind, name) -> {ecg_id: Ecg} that show it, or of which it is uncertain.
    """

    def __init__(self, ecgs, kinds):
        self.known, self.shown, self.unsure = defaultdict(list), defaultdict(dict), defaultdict(dict)
        for ecg in ecgs:
            for kind in kinds & ecg.found.keys():
                findings = ecg.found[kind]
                self.known[kind].append(ecg)
                for name, state in findings.items():
                    (self.shown if state else self.unsure)[kind, name][ecg.ecg_id] = ecg

    def verify(self, kind, name):
        """Answers and rest of "is it there?"."""
        shown, unsure = self.shown[kind, name], self.unsure[kind, name]
        return {
            "answers": {("yes",): list(shown.values())},
            "rest": ("no",),
            "known": self.known[kind],
            "excluded": shown.keys() | unsure.keys(),
        }

    def choose(self, kind, pair, neither):
        """Answers and rest of "which of the two?"; both is an answer too."""
        (a, b), (shown_a, shown_b) = pair, (self.shown[kind, name] for name in pair)
        unsure = self.unsure[kind, a].keys() | self.unsure[kind, b].keys()
        answers = {(a,): [], (b,): [], tuple(sorted(pair)): []}
        for ecg_id in sorted(shown_a.keys() | shown_b.keys()):
            if ecg_id in unsure:
                continue
            answer = tuple(sorted(name for name, shown in ((a, shown_a), (b, shown_b)) if ecg_id in shown))
            answers[answer].append(shown_a.get(ecg_id) or shown_b[ecg_id])
        return {
            "answers": {answer: ecgs for answer, ecgs in answers.items() if ecgs},
            "rest": (neither,),
            "known": self.known[kind],
            "excluded": shown_a.keys() | shown_b.keys() | unsure,
        }

    def query(self, kind, names, asked, none):
        """Answers of "which of these?". ECGs are left out where one is uncertain, or shown but not ``asked`` about."""
        answers = defaultdict(list)
        for ecg in self.known[kind]:
            findings = ecg.found[kind]
            states = {name: findings[name] for name in findings.keys() & names}
            if None not in states.values() and states.keys() <= asked:
                answers[tuple(sorted(states)) or (none,)].append(ecg)
        return {"answers": answers}


def balance(groups, limit, rng):
    """Choose ECGs for each group: those asked least first, no answer ahead of the next.

    Parameters
    ----------
    groups : iterable of Group
    limit : int
        Most questions about one ECG.
    rng : random.Random

    Returns
    -------
    chosen : list of (Group, answer, Ecg)
    left_out : int
        How many more (group, ECG) there would have been.
    """
    groups = list(groups)
    of_template = Counter(group.template for group in groups)
    # Rare groups first; but a template with hundreds of them may not use up what an ECG may be asked
    groups.sort(key=lambda group: (group.rarest() * of_template[group.template], group.text))
    used, chosen, possible = Counter(), [], 0
    for group in groups:
        free = {answer: _least_asked(ecgs, used, limit, rng) for answer, ecgs in sorted(group.answers.items())}
        possible += sum(map(len, group.answers.values()))
        if group.rest:
            needed = max(map(len, free.values()), default=0)
            free[group.rest] = _draw(group, needed, used, limit, rng)
            possible += len(group.known) - len(group.excluded)
        most = _second(list(map(len, free.values())))
        for answer, ecgs in free.items():
            for ecg in sorted(ecgs[:most], key=lambda ecg: ecg.ecg_id):
                used[ecg.ecg_id] += 1
                chosen.append((group, answer, ecg))
    return chosen, possible - len(chosen)


def _least_asked(ecgs, used, limit, rng):
    ecgs = [ecg for ecg in ecgs if used[ecg.ecg_id] < limit]
    rng.shuffle(ecgs)
    return sorted(ecgs, key=lambda ecg: used[ecg.ecg_id])


def _draw(group, needed, used, limit, rng):
    """``needed`` ECGs of the rest, or as many as there are; the least asked of a sample."""
    for size in (4 * needed + 64, len(group.known)):
        sample = rng.sample(group.known, min(size, len(group.known)))
        ecgs = _least_asked([ecg for ecg in sample if ecg.ecg_id not in group.excluded], used, limit, rng)
        if len(ecgs) >= needed:
            break
    return ecgs[:needed]


def _second(sizes):
    return sorted(sizes, reverse=True)[1] if len(sizes) > 1 else 0
