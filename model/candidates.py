"""Which answers a question is open to, where they are compared rather than generated (`ANSWERS=likelihood`).

- verify: yes, no, and what else the training answers to its template hold ("not sure");
- choose: the two that it names (its `attribute`), both, none; without the two names as query;
- query: every different answer that the training manifest has for its template, and for a template that it hasn't,
  every answer to its question type.

Answers are compared as sets, as they are scored; each is written as the training manifest writes it most often.
"""

from collections import Counter, defaultdict


def candidate_rule(train_items):
    """Learn the rule from the training items.

    Returns
    -------
    callable
        item -> list of answers, each a list of str; at least one.
    """
    by_template, by_type = defaultdict(Counter), defaultdict(Counter)
    for item in train_items:
        for counter in (by_template[item.get("template_id")], by_type[item["question_type"]]):
            counter[tuple(item["answer"])] += 1
    templates, types = (
        {key: _different(counter) for key, counter in table.items()} for table in (by_template, by_type)
    )

    def candidates(item):
        kind, names = item["question_type"], item.get("attribute") or []
        seen = templates.get(item.get("template_id")) or types.get(kind, [])
        if "choose" in kind and len(names) == 2:
            return [names[:1], names[1:], list(names), ["none"]]
        if "verify" in kind:
            return [["yes"], ["no"], *(answer for answer in seen if answer not in (["yes"], ["no"]))]
        return seen or [["none"]]

    return candidates


def _different(counter):
    """Answers that differ as sets, in alphabetical order, each as it is written most often."""
    written = {}
    for answer, _ in sorted(counter.items(), key=lambda pair: (-pair[1], pair[0])):
        written.setdefault(frozenset(answer), list(answer))
    return sorted(written.values())
