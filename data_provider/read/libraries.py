"""A reading library's call: its faults become ours, its warnings notes."""

import importlib
import threading
import warnings

_one_at_a_time = threading.Lock()  # warnings.catch_warnings changes what all threads share


def with_library(name, read, path):
    """``read(library, path)`` and what the library warned of.

    Parameters
    ----------
    name : str
        What is imported.
    read : callable
    path : Path

    Returns
    -------
    result
    notes : list of str
        Each warning once.

    Raises
    ------
    ValueError
        The library is not installed, or the file cannot be read by it.
    """
    try:
        library = importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{name} is needed to read it: pip install -r requirements-readers.txt") from None
    with _one_at_a_time, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = read(library, path)
        except MemoryError as error:
            raise ValueError(f"cannot be read by {name} (it takes more memory than there is)") from error
        except Exception as error:  # the libraries raise many kinds; whatever it is, the file is at fault
            raise ValueError(f"cannot be read by {name} ({type(error).__name__}: {first_line(error, path)})") from error
    return result, list(dict.fromkeys(f"{name}: {first_line(one.message, path)}" for one in caught if _counts(one)))


def _counts(warning):
    """Whether a warning is of the file: what a library says of its own code's future is not."""
    return not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning | FutureWarning)


def first_line(error, path):
    """The first line of a library's words, without the path, which every error begins with anyway."""
    text = str(error).replace(str(path), "the file").replace(path.name, "the file")
    return (text.splitlines() or [""])[0][:200]
