"""The notebook is what a newcomer runs first: every cell must run, on a machine with nothing but this repository."""

import nbformat
import pytest

from utils.tools import REPOSITORY

NOTEBOOK = REPOSITORY / "docs/first_steps.ipynb"


def test_the_notebook_is_stored_without_outputs():
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs():
    from nbclient import NotebookClient

    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    text = "".join(output.get("text", "") for output in shown)
    assert "(12, 5000) mV at 500" in text and "(325,)" in text and "constant answer: exact match" in text
    assert "Who won the match?" in text and "unknown" in text
