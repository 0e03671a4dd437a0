#!/usr/bin/env bash
# All checks, as CI runs them.  bash test.sh [PYTEST ARGUMENTS]   (-m "not slow" leaves out the long ones)
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
prepare_environment || exit $?
cd "$REPO" || exit 2
pip_install -r requirements-dev.txt || { echo "error: pip could not install requirements-dev.txt" >&2; exit 2; }
pip_install -r requirements-optional.txt || echo "note: the optional readers could not be installed; their tests skip"
"$PYTHON" -m ruff check . || exit 1
# Two at a time, file by file: most of a slow test is waiting for processes to start.
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
