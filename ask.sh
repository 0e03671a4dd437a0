#!/usr/bin/env bash
# Ask about your own ECG.  bash ask.sh FILE [FILE] ["question" ...] [--report] [KEY=VALUE ...]   (--help says more)
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
prepare_environment || exit $?
prepare_readers || exit $?
exec "$PYTHON" -m app "$@"
