#!/usr/bin/env bash
# Ask about your own ECG.  bash ask.sh FILE [FILE] ["question" ...] [--report] [KEY=VALUE ...]   (--help says more)
#                          bash ask.sh --page [--host ADDRESS] [--port N] [KEY=VALUE ...]        (on a page)
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
prepare_environment || exit $?
prepare_readers || exit $?
case " $* " in *" --page "*) prepare_page || exit $? ;; esac
exec "$PYTHON" -m app "$@"
