"""A setting's text as its value: numbers, choices, lists with commas, paths, checked against the setting's rules."""

import os
import sys
from pathlib import Path

from utils.tools import UserError

LLM_NAMES = ("tiny", "smollm2")  # what LOCAL_LLM_PATH may say in place of a folder
PROMPT_NAMES = ("ecg_first", "question_first")  # and PROMPTS in place of a file
NAMES = LLM_NAMES + PROMPT_NAMES


def parse_value(field, text, base, where=""):
    """The value that ``text`` stands for; a `UserError` where it breaks the rules of the setting.

    Parameters
    ----------
    field : dataclasses.Field
        The setting, with its rules in ``metadata``.
    text : str
    base : Path
        Where a relative path starts.
    where : str
        What a message begins with.
    """
    rules, key = field.metadata, field.name.upper()
    text = text.strip()

    def wrong(why):
        return UserError(f"{where}{key}={text}: {why}")

    try:
        if field.type is bool:
            value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        elif field.type is tuple:
            words = [word.strip() for word in text.split(",") if word.strip()]
            value = tuple(words) if rules["choices"] or rules["path"] else tuple(map(rules["of"], words))
        else:
            value = field.type(text)
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}
        kind[tuple] = "whole numbers with commas" if rules["of"] is int else "numbers with commas"
        raise wrong(f"must be {kind[field.type]}") from None
    for part in value_parts(value):
        if rules["choices"] and part not in rules["choices"]:
            raise wrong("must be " + " or ".join(choice or "empty" for choice in rules["choices"]))
        if rules["low"] is not None and not rules["low"] <= part <= (rules["high"] or sys.float_info.max):
            upper = f" and at most {rules['high']}" if rules["high"] else ""
            raise wrong(f"must be at least {rules['low']}{upper}")
    if field.type is tuple and field.default and not value:
        raise wrong("must hold at least one " + ("name" if rules["of"] is str or rules["choices"] else "number"))
    if rules["path"]:
        paths = tuple(_absolute(path, base) for path in value_parts(value))
        value = paths if field.type is tuple else paths[0]
    return value


def _absolute(path, base):
    return path if path in ("", *NAMES) else os.path.normpath(base / Path(path).expanduser())


def value_parts(value):
    """The parts of a setting with commas; any other is its own only part."""
    return value if isinstance(value, tuple) else (value,)
