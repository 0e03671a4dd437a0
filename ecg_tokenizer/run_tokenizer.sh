#!/usr/bin/env bash
# Stage 1: train the ECG tokenizer.  bash run_tokenizer.sh [ENV FILE] [KEY=VALUE ...]   (default: ecg_tokenizer/config.env)
source "$(dirname "${BASH_SOURCE[0]}")/../utils/launch.sh"
prepare_environment || exit $?
env_file_given "$@" || set -- "$REPO/ecg_tokenizer/config.env" "$@"
make_demo_data_if_asked "$@" || exit $?
exec "$PYTHON" -m ecg_tokenizer.tokenizer "$@"
