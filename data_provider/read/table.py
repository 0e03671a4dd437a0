"""`Table`: columns of numbers and what their file says of them."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Table:
    """A file of numbers, before it is known which columns are leads.

    Attributes
    ----------
    columns : array [columns, T]
        Or the other way round where it is not settled: a file of bare numbers does not say it.
    names, units : list of str, optional
        One a column.
    sample_rate : float, optional
        Hz.
    clock : int, optional
        The column of times that are written like 0:01.5; here they are seconds.
    settled : bool
        Whether it is known that ``columns`` are columns.
    notes : list of str
    """

    columns: np.ndarray
    names: list | None = None
    units: list | None = None
    sample_rate: float | None = None
    clock: int | None = None
    settled: bool = False
    notes: list = dataclasses.field(default_factory=list)
