#!/usr/bin/env bash
# All checks, as CI runs them.  bash test.sh [PYTEST ARGUMENTS]   (-m "not slow" leaves out the long ones)
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
prepare_environment || exit $?
cd "$REPO" || exit 2
"$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements-optional.txt \
    || echo "note: the optional readers could not be installed; their tests skip"
"$PYTHON" -m ruff check . || exit 1
exec "$PYTHON" -m pytest "$@"
