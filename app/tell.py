"""What was read, measured and said of an ECG, as text for a terminal."""

import textwrap

WIDTH = 110


def tell(told):
    """The text of what `app.__main__.ask_files` found."""
    lines = [told["note"], f"reader    {told['reader']}"]
    for ecg in told["ecgs"]:
        lines += [""] + _block("ECG", ecg["read"])
        lines += _block("measured", [f"{name}: {value}" for name, value in ecg["measured_as_text"]])
    if "report" in told:
        text = told["report"]["text"] or "(this reader has not learned to write reports)"
        lines += [""] + _block("report", [text, *against(told["report"]["contradictions"])])
    for said in told.get("answers", ()):
        lines += [""] + _block("question", [said["question"]]) + _block("answer", _answer_lines(said))
    return "\n".join(lines)


def _answer_lines(said):
    if said["answer"] is None:
        yield "none: the reader was not trained on questions like this (--free asks it all the same)"
        yield nearest(said["question"], said["asked_as"])
        return
    if said["unknown"]:
        yield "the reader was not trained on questions like this; what it says is not to be relied on:"
    elif said["asked_as"] != said["question"]:
        yield f"understood as: {said['asked_as']}"
    text = with_probability(said["answer"], said["probability"])
    if said["abstained"]:
        yield f"uncertain, better not answered; likeliest: {text}"
    else:
        yield text
    if said["alternatives"]:
        yield "otherwise: " + "; ".join(with_probability(*other) for other in said["alternatives"])
    if said["contradiction"]:
        yield from against([said["contradiction"]])


def nearest(question, asked_as):
    """The line for a question that the reader was not trained on: which known one is nearest, if any is."""
    if asked_as == question:  # it never compared ECGs, or never looked at one alone
        return "it knows no questions about this number of ECGs"
    return f"nearest question that it knows: {asked_as}"


def with_probability(answer, probability):
    text = ", ".join(answer)
    return text if probability is None else f"{text} ({_percent(probability)})"


def _percent(share):
    return "< 1 %" if share < 0.005 else f"{share * 100:.0f} %"


def against(lines):
    return [f"CONTRADICTED by the measurement: {line}" for line in lines]


def _block(name, lines):
    """Lines behind a name, the first beside it and the others below each other."""
    wrapped = [part for line in lines for part in textwrap.wrap(line, WIDTH - 10) or [""]]
    return [f"{name if not number else '':<10}{line}".rstrip() for number, line in enumerate(wrapped)]
