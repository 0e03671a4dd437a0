"""An env file as the shell reads it: the published launchers `source` theirs.

``KEY=VALUE``, with or without ``export``; ``#`` begins a comment. Single quotes keep everything as it stands; outside
of them ``$NAME``, ``${NAME}`` and ``${NAME:-default}`` stand for an earlier line or the environment, and a backslash
keeps the sign behind it. Nothing is executed: ``$(...)`` is refused. A name that is not set is a fault here, where the
shell takes it to be empty: a path would lose its beginning.
"""

import os
import re

from utils.tools import UserError

_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*")
_EMPTY = re.compile(r"\s*(?:#[^\n]*)?(?:\n|$)")
_BLANK = re.compile(r"[ \t]+")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?-)([^}]*))?\})")
_QUOTED = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r"[^'\"\\$`\s]+")


def read_env_file(path):
    """The variables of an env file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    values : dict
        Name -> text, in the file's order.
    used : set of str
        Names that other lines refer to: helpers need not be settings.

    Raises
    ------
    UserError
        The file cannot be read, or a line of it.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the env file cannot be read ({getattr(error, 'strerror', None) or error})") from error
    values, used, at = {}, set(), 0
    while at < len(text):
        where = f"{path}, line {text.count(chr(10), 0, at) + 1}: "
        line = text[at:].split("\n", 1)[0].strip()
        empty, key = _EMPTY.match(text, at), _LINE.match(text, at)
        if empty:
            at = empty.end()
        elif not key:
            raise UserError(f"{where}not KEY=VALUE: {line}")
        else:
            try:
                values[key[1]], at = _value(text, key.end(), values, used)
            except ValueError as error:
                raise UserError(f"{where}{error}: {line}") from None
    return values, used


def _value(text, at, values, used):
    """The value that begins at ``at``, and where the next line does."""
    parts = []
    while at < len(text) and text[at] != "\n":
        blank = _BLANK.match(text, at)
        if blank:
            if text[blank.end() : blank.end() + 1] in ("", "\n", "#"):
                at = len(text) if (end := text.find("\n", at)) < 0 else end
                break
            parts.append(blank[0])
            at = blank.end()
            continue
        piece, at = _piece(text, at, values, used)
        parts.append(piece)
    return "".join(parts), at + 1


def _piece(text, at, values, used):
    """What a quotation, a variable, or a run of plain letters stands for, and where it ends."""
    if match := _QUOTED.match(text, at):
        return match[1], match.end()
    if match := _DOUBLE.match(text, at):
        return _inside_quotes(match[1], values, used), match.end()
    if text[at] in "'\"":
        raise ValueError("a quotation mark without its other one")
    if text[at] == "\\":
        return text[at + 1 : at + 2].strip("\n"), at + 2
    if match := _VARIABLE.match(text, at):
        return _variable(match, values, used), match.end()
    if text[at] == "`" or text.startswith(("$(", "${"), at):
        raise ValueError("only $NAME, ${NAME} and ${NAME:-default} are expanded, nothing is executed")
    match = _PLAIN.match(text, at)
    return (match[0], match.end()) if match else (text[at], at + 1)


def _inside_quotes(text, values, used):
    parts, at = [], 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in ("$", "`", '"', "\\", "\n"):
            parts.append(text[at + 1].strip("\n"))
            at += 2
        elif text[at] in "$`":
            piece, at = _piece(text, at, values, used)
            parts.append(piece)
        else:
            parts.append(text[at])
            at += 1
    return "".join(parts)


def _variable(match, values, used):
    name = match[1] or match[2]
    used.add(name)
    value = values.get(name, os.environ.get(name))
    if match[3] and (value is None or (match[3] == ":-" and not value)):
        return _inside_quotes(match[4], values, used)
    if value is None:
        raise ValueError(f"{name} is not set (${{{name}:-}} would be empty)")
    return value
