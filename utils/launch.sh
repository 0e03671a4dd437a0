# What the launchers share. Source it; it changes neither the folder nor the shell's options.
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# An environment with what requirements.txt pins: the active one, or .venv. Sets PYTHON.
prepare_environment() {
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        PYTHON="$VIRTUAL_ENV/bin/python"
    elif [ -n "${CONDA_PREFIX:-}" ]; then
        PYTHON="$CONDA_PREFIX/bin/python"
    else
        PYTHON="$REPO/.venv/bin/python"
        if [ ! -x "$PYTHON" ] || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
            check_python python3 || return 2
            echo "making the environment .venv"
            python3 -m venv --clear "$REPO/.venv" || { echo "error: python3 -m venv failed (on Debian: apt install python3-venv)" >&2; return 2; }
        fi
    fi
    check_python "$PYTHON" || return 2
    local wanted marker
    wanted="$(cat "$REPO/requirements.txt" "$REPO/constraints.txt" \
        | "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    marker="$("$PYTHON" -c 'import sys; print(sys.prefix)')/.heartllm-requirements"
    if [ "$(cat "$marker" 2>/dev/null)" != "$wanted" ]; then
        echo "installing what requirements.txt pins (some minutes, about 2 GB; once)"
        pip_install -r "$REPO/requirements.txt" || { echo "error: pip could not install requirements.txt" >&2; return 2; }
        echo "$wanted" >"$marker"
    fi
    export PYTHON PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}"
    # Threads that wait give the core away soon: on a busy machine, spinning ones slow a run ten times and more.
    export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"
    # One line a process says what it computes on; the libraries' own lines only bury it.
    export TOKENIZERS_PARALLELISM=false TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS="${PYTHONWARNINGS:-ignore::FutureWarning}"
}

# The readers of clinical systems' files: some megabytes, once. Without them the other formats are read all the same.
prepare_readers() {
    "$PYTHON" -c 'import ecgdatakit, xmltodict, pydicom, pyedflib' 2>/dev/null && return
    echo "installing the readers of clinical systems' files (once)" >&2
    pip_install -r "$REPO/requirements-readers.txt" \
        || echo "note: they could not be installed; DICOM, SCP-ECG, HL7, MUSE, Philips and EDF files need them" >&2
}

# What the page needs beside that.
prepare_page() {
    "$PYTHON" -c 'import gradio, mcp' 2>/dev/null && return
    echo "installing Gradio, for the page (once)" >&2
    pip_install -r "$REPO/requirements-page.txt" || { echo "error: pip could not install requirements-page.txt" >&2; return 2; }
}

# pip with the versions that are known to work together.
pip_install() {
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c "$REPO/constraints.txt" "$@"
}

check_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
        || { echo "error: Python 3.11 or newer is needed ($("$1" --version 2>&1 || echo "no $1"))" >&2; return 2; }
}

# The simulated data set that env/demo/ describes; quick when it is there already.
make_demo_data() {
    "$PYTHON" -m data_provider.simulate --out "$REPO/dataset/demo/files" --patients 1300 --seed 0 || return $?
    "$PYTHON" -m data_provider.prepare ptbxl --root "$REPO/dataset/demo/files" --out "$REPO/dataset" --name demo \
        --questions-per-ecg 7
}

# The demo's env files work by themselves too.
make_demo_data_if_asked() {
    case " $* " in
        *env/demo/*) [ -d "$REPO/dataset/ecgqa/demo" ] || make_demo_data ;;
    esac
}

# Whether the words of a command line name an env file: what is neither KEY=VALUE nor an option (--slurm "OPTIONS").
env_file_given() {
    local word before=""
    for word in "$@"; do
        if [ "$before" != --slurm ]; then
            case "$word" in --*) ;; *=*) [ ! -f "$word" ] || return 0 ;; *) return 0 ;; esac
        fi
        before="$word"
    done
    return 1
}

# run_stage SCRIPT STAGE DEFAULT_ENV [ENV FILE] [KEY=VALUE ...]
# The stage takes this shell's place (exec), so that a scheduler's signal reaches it; it starts its processes itself.
run_stage() {
    local script="$REPO/$1" stage="$2" default="$3"
    shift 3
    env_file_given "$@" || set -- "$REPO/$default" "$@"
    make_demo_data_if_asked "$@" || return $?
    exec "$PYTHON" "$script" "$stage" "$@"
}
