"""Which ECGs a question is asked about, so that no constant answer does well.

In each group (one question) no answer is given more often than the next frequent one: verify questions are half yes and
half no, and no open question has an answer that is right more than half of the time.
"""

import dataclasses
from collections import Counter, defaultdict

ECGS_PER_ROUND = 4  # ECGs of each answer that a group takes in a round


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
    """Choose ECGs for each group, in rounds: in each a group takes a few ECGs of every answer, as long as it can.

    So a group with many ECGs doesn't use up what they may be asked before the others had their turn.

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
    used = Counter()
    drawings = [_Drawing(group, used, limit, rng) for group in groups]
    active = drawings
    while active:
        active = [drawing for drawing in active if drawing.take(ECGS_PER_ROUND)]
    chosen = [entry for drawing in drawings for entry in drawing.balanced()]
    possible = sum(drawing.possible for drawing in drawings)
    return chosen, possible - len(chosen)


class _Drawing:
    """The ECGs that one group has taken, and those that it may still take."""

    def __init__(self, group, used, limit, rng):
        self.group, self._used, self._limit, self._rng = group, used, limit, rng
        self._open = {answer: rng.sample(ecgs, len(ecgs)) for answer, ecgs in sorted(group.answers.items())}
        self.possible = sum(map(len, self._open.values()))
        self._all_tried = not group.rest
        if group.rest:
            self.possible += len(group.known) - len(group.excluded)
            # many times more than needed: a part of them will do, at first
            needed = 4 * max(map(len, self._open.values()), default=0) + 64
            self._open[group.rest] = self._rest(min(needed, len(group.known)))
        self._taken = {answer: [] for answer in self._open}

    def take(self, count):
        """Take up to ``count`` ECGs of each answer, of none more than of the second; False when that is none."""
        fresh = {answer: self._next(answer, count) for answer in self._open}
        most = _second(list(map(len, fresh.values())))
        for answer, ecgs in fresh.items():
            self._open[answer] += ecgs[most:]
            self._taken[answer] += ecgs[:most]
            self._used.update(ecg.ecg_id for ecg in ecgs[:most])
        return most > 0

    def balanced(self):
        """What was taken, no answer ahead of the next over all rounds, in the order of ecg_id."""
        most = _second(list(map(len, self._taken.values())))
        for answer, ecgs in self._taken.items():
            yield from ((self.group, answer, ecg) for ecg in sorted(ecgs[:most], key=lambda ecg: ecg.ecg_id))

    def _next(self, answer, count):
        """Up to ``count`` ECGs of an answer that may still be asked; those that may not are forgotten."""
        found, waiting = [], self._open[answer]
        while len(found) < count:
            if not waiting:
                if answer != self.group.rest or self._all_tried:
                    break
                self._all_tried = True
                tried = {ecg.ecg_id for ecg in [*self._taken[answer], *found]}
                waiting += [ecg for ecg in self._rest(len(self.group.known)) if ecg.ecg_id not in tried]
                continue
            ecg = waiting.pop()
            if self._used[ecg.ecg_id] < self._limit:
                found.append(ecg)
        return found

    def _rest(self, count):
        sample = self._rng.sample(self.group.known, count)
        return [ecg for ecg in sample if ecg.ecg_id not in self.group.excluded]


def _second(sizes):
    return sorted(sizes, reverse=True)[1] if len(sizes) > 1 else 0
