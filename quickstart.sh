#!/usr/bin/env bash
# From nothing to scores on simulated ECGs, in minutes on a laptop.  bash quickstart.sh [--fresh]
# Run again, it reuses what is finished, and goes on where it was interrupted. Settings: env/demo/.
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
case "${1:-}" in
    --fresh) rm -rf "$REPO/results/demo" "$REPO/dataset/demo" "$REPO/dataset/report/demo" "$REPO/dataset/ecgqa/demo" ;;
    "") ;;
    *) echo "error: usage: bash quickstart.sh [--fresh]" >&2; exit 2 ;;
esac
cd "$REPO" || exit 2
set -e
prepare_environment
begun=$SECONDS
"$PYTHON" -m utils.expected_time
step() { printf '\n== %s\n' "$1"; shift; "$@"; }

step "1/7 simulated ECGs with known findings" make_demo_data
step "2/7 stage 1: the ECG tokenizer" bash ecg_tokenizer/run_tokenizer.sh env/demo/tokenizer.env RESUME=auto
step "3/7 stage 2: an LLM learns the codes" bash pretrain.sh env/demo/pretrain.env RESUME=auto
step "4/7 stage 3: it learns to answer" bash finetune.sh env/demo/ft_qa.env RESUME=auto
step "5/7 stage 3: it learns to report" bash finetune.sh env/demo/ft_report.env RESUME=auto
step "6/7 exam: questions about unseen patients" bash eval.sh env/demo/test_qa.env RESUME=auto
step "7/7 exam: reports on unseen patients" bash eval.sh env/demo/test_report.env RESUME=auto
echo
"$PYTHON" run_summary.py results/demo --tokenizer results/demo/tokenizer --root dataset/demo/files --manifest dataset/report/demo/test.json
echo "quickstart: $(((SECONDS - begun) / 60)) min $(((SECONDS - begun) % 60)) s"
