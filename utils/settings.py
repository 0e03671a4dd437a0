"""The settings of a run: one dataclass, filled from the command line, then an env file, then the defaults.

``KEY=VALUE`` on the command line wins over the env file, which wins over the default. Keys are the fields' names in
capitals. Relative paths in an env file start at the repository, those on the command line where you stand.
The table in docs/settings.md is ``python -m utils.settings --table``.
"""

import dataclasses
import os
import sys
from pathlib import Path

from utils.env_files import read_env_file
from utils.setting_values import NAMES, parse_value, value_parts
from utils.tools import REPOSITORY, UserError, entry_point, sha256_json

STAGES = ("tokenizer", "pretrain", "finetune", "eval")
ALL, LLM, TRAIN, TUNE = "tpfe", "pfe", "tpf", "pf"  # which stages read a setting, by their initials
# What a run that goes on may be given anew (`Settings.parts`)
LENGTH = {"max_steps", "train_epochs"}  # stage 1's EPOCHS decide: its learning rate falls until their end
OTHER = {"resume", "save_steps", "verbose_steps", "eval_steps", "val_items", "threads", "workers", "device", "stage"}
OTHER |= {"llm", "override", "num_processes", "launcher", "hostfile", "include", "nodes", "node_rank", "rendezvous"}
OTHER |= {"gradient_checkpointing", "compile"}


def _setting(default, stages, help, choices=None, low=None, high=None, path=False, must_exist=False, of=int):
    """A field; ``of`` is the type of a list's parts (those of choices and paths are texts)."""
    metadata = dict(stages=stages, help=help, choices=choices, low=low, high=high, path=path, must_exist=must_exist, of=of)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every setting of every stage; ``metadata`` holds what docs/settings.md says of it."""

    # data
    root_ecg: tuple = _setting((), "t", "folder of the ECG records that the manifests name; several with commas", path=True, must_exist=True)
    train_path: tuple = _setting((), "t", "training manifest (QA or report), one for each of ROOT_ECG", path=True, must_exist=True)
    val_path: tuple = _setting((), "t", "validation manifest (QA or report), one for each of ROOT_ECG or for its first ones", path=True, must_exist=True)
    root_path_ecg: tuple = _setting((), LLM, "folder of the ECG records that the manifests name; with several data sets one for each, with commas, or one for all", path=True, must_exist=True)
    root_path_json: tuple = _setting((), LLM, "folder of the QA manifests (template_train_background.json, ...), or of one such folder a data set; several as in ROOT_PATH_ECG", path=True, must_exist=True)
    root_report_json: tuple = _setting((), LLM, "folder of the report manifests (train.json, ...); as ROOT_PATH_JSON", path=True, must_exist=True)
    dataset: tuple = _setting(("ptbxl",), LLM, "name of the data set, part of the results folder's name; training takes several, with commas", of=str)
    mix: tuple = _setting((), TUNE, "passes that an epoch makes over each data set (stage 3: and task, in the order qa a, report a, qa b, report b), with commas; 0.5 takes half of the items, 0 none; empty makes one each", low=0, high=1000, of=float)
    lead_order: str = _setting("name", ALL, "find leads by their names, or by their position in the file (as the published code)", choices=("name", "file"))
    short_records: str = _setting("refuse", ALL, "records shorter than 10 s: refuse them, or pad them with their mean", choices=("refuse", "pad"))
    crop: str = _setting("first", ALL, "which 10 s of a longer record", choices=("first", "centre"))
    max_gap_s: float = _setting(0.2, ALL, "longest gap (NaN) in seconds that is interpolated; longer ones refuse the record", low=0)
    # stage 1
    architecture: str = _setting("default", "t", "the small fast network, or the published one", choices=("default", "published"))
    quantizer: str = _setting("fsq", "t", "finite scalar quantisation, or a learned codebook", choices=("fsq", "vq"))
    levels: tuple = _setting((6, 6, 6, 6), "t", "levels of each code dimension (FSQ); their product is the number of codes", low=2, high=64)
    codebook_size: int = _setting(1296, "t", "number of codes (VQ)", low=2, high=65000)
    codes_per_ecg: int = _setting(313, "t", "places in 10 s at which a code describes the 12 leads", low=8, high=2500)
    residual_depth: int = _setting(1, "t", "codes a place (FSQ): each next one writes down what the one before rounded away", low=1, high=4)
    encoder_depth: int = _setting(0, "t", "blocks of what turns the ECG into its codes (default architecture); 0 is START_FROM's, without it 4", low=0, high=100)
    decoder_depth: int = _setting(0, "t", "blocks of what draws the ECG from its codes (default architecture); 0 is START_FROM's, without it 4", low=0, high=100)
    amplitude: bool = _setting(True, "t", "12 more codes an ECG for the amplitudes of its leads (default architecture only; the published one never has them)")
    start_from: str = _setting("", "t", "trained ECG tokenizer of the same network (a folder, or a best.pt) from whose weights training starts; ecg_tokenizer/pretrained comes with the repository. ENCODER_DEPTH and DECODER_DEPTH may be raised", path=True, must_exist=True)
    keep_codes: bool = _setting(False, "t", "train only what draws the ECG from its codes (needs START_FROM, QUANTIZER=fsq): an ECG's codes stay the same, so stored codes and adapters stay good")
    augment: bool = _setting(True, "t", "draw each ECG's start anew at every pass and mix its leads a little")
    batch: int = _setting(16, "t", "ECGs a training step", low=1)
    epochs: int = _setting(5, "t", "passes over the training ECGs", low=1)
    lr: float = _setting(2e-3, "t", "peak learning rate", low=0)
    val_every: int = _setting(500, "t", "steps between validations", low=1)
    patience: int = _setting(3, "t", "validations without improvement before training stops; 0 never stops", low=0)
    max_minutes: float = _setting(0.0, "t", "longest training time in minutes; 0 is no limit", low=0)
    log_root: str = _setting("ecg_tokenizer/result_tokenzier", "t", "where the tokenizer and its logs go", path=True)
    workers: int = _setting(0, ALL, "threads that read ECG files; 0 reads in the main one", low=0)
    # the language model
    llm: str = _setting("", LLM, "a label for the LLM, recorded with the results")
    local_llm_path: str = _setting("tiny", LLM, "folder of a causal LM; `tiny` is the embedded one, `smollm2` a pretrained one of 135 M parameters that is fetched once (93 MB)", path=True, must_exist=True)
    tokenizer_path: str = _setting("", LLM, "trained ECG tokenizer: a folder, or a best.pt (ours or the authors')", path=True, must_exist=True)
    pretrain_path: str = _setting("", "f", "what stage 2 left (or the authors' checkpoint_epoch0.pth); empty starts from the LLM", path=True, must_exist=True)
    ckp_path: str = _setting("", "e", "what stage 3 left (or the authors' checkpoint_epoch0.pth)", path=True, must_exist=True)
    code_rows: str = _setting("codec", TUNE, "where the rows of the codes start: from what the ECG tokenizer knows of each code, or all at the mean of the LLM's rows plus noise", choices=("codec", "mean"))
    train_code_rows: bool = _setting(True, TUNE, "train the rows of the codes; false leaves them where they start (stage 3: where stage 2 left them)")
    tuning: str = _setting("lora", TUNE, "train LoRA, norms and the code tokens' rows, or all weights", choices=("lora", "full"))
    lora_r: int = _setting(64, TUNE, "rank of LoRA", low=1)
    lora_alpha: int = _setting(16, TUNE, "scale of LoRA (alpha / rank)", low=1)
    lora_dropout: float = _setting(0.05, TUNE, "dropout before LoRA", low=0, high=0.9)
    code_views: int = _setting(1, LLM, "ways in which an ECG is encoded: as it is, and from 2 on also with other starts and slightly mixed leads. Training draws one at every pass; the exam (ANSWERS=likelihood) averages over all", low=0, high=100)
    pretrain_objective: str = _setting("forecast", "p", "predict the end of windows of five lengths (published), or every next code", choices=("forecast", "causal"))
    prompts: str = _setting("", "fe", "other prompt words: `ecg_first`, `question_first` (env/prompts/), or a JSON file; empty uses model/prompts.py's", path=True, must_exist=True)
    override: tuple = _setting((), "fe", "take these settings, with commas, though the adapter was trained with others", choices=("tasktype", "prompts", "lead_order"))
    share_ecg: bool = _setting(False, "f", "compute an ECG once for all questions on it; needs PROMPTS with the ECG first; BATCH_SIZE counts ECGs")
    # training
    stage: str = _setting("", LLM, "pretrain, finetune or test: checked against the launcher", choices=("", "pretrain", "finetune", "test"))
    tasktype: tuple = _setting(("qa",), "fe", "answer questions, or write reports; training takes both, with a comma", choices=("qa", "report"))
    train_epochs: int = _setting(1, TUNE, "passes over the training items", low=1)
    max_steps: int = _setting(0, TUNE, "stop after so many steps; 0 is no limit", low=0)
    batch_size: int = _setting(4, LLM, "items (stage 2: ECGs) a step, an accumulation and a process", low=1)
    accumulation: int = _setting(1, TUNE, "batches whose gradients are added up for one step", low=1)
    tokens_per_step: int = _setting(0, TUNE, "tokens a step of all processes, padding left out and shared ECGs counted once: packed over as many items as they hold, in place of BATCH_SIZE; 0 counts items", low=0)
    gradient_checkpointing: bool = _setting(False, TUNE, "keep only each layer's input for the backward pass and compute the rest again: less memory, a third more time")
    compile: bool = _setting(False, TUNE, "compile the LLM layer by layer (torch.compile): minutes at the start, faster steps")
    load_in_4bit: bool = _setting(False, TUNE, "keep the LLM's frozen weights in 4 bits (NF4; needs bitsandbytes, TUNING=lora)")
    learning_rate: float = _setting(1e-4, TUNE, "peak learning rate", low=0)
    schedule: str = _setting("constant", TUNE, "learning rate after the warm-up", choices=("constant", "cosine"))
    warmup_steps: int = _setting(0, TUNE, "steps over which the learning rate rises", low=0)
    weight_decay: float = _setting(0.0, TUNE, "AdamW's weight decay", low=0)
    use_amp: bool = _setting(True, ALL, "bf16 where the processor is fast at it (float32 elsewhere); codes are float32 always")
    verbose_steps: int = _setting(10, TUNE, "steps between lines of log.jsonl", low=1)
    eval_steps: int = _setting(500, TUNE, "steps between validations", low=1)
    val_items: int = _setting(256, TUNE, "items of each validation manifest that a validation uses", low=1)
    save_steps: int = _setting(500, TRAIN, "steps between saves that RESUME goes on from", low=1)
    resume: str = _setting("false", ALL, "true goes on from the last save, auto where settings and inputs allow it; an earlier run that is not gone on from is moved aside", choices=("false", "true", "auto"))
    seed: int = _setting(0, ALL, "seed of everything drawn at random", low=0)
    # evaluation
    controls: tuple = _setting((), "e", "also score with another patient's ECG and with a flat one: shuffled,blank", choices=("shuffled", "blank"))
    answers: str = _setting("generate", "e", "answer with what the LLM writes, or with the likeliest of a question's candidates (QA only)", choices=("generate", "likelihood"))
    engine: str = _setting("own", "e", "what writes the answers: our own loop, or vLLM where it is installed (otherwise ours, and the exam says so)", choices=("own", "vllm"))
    max_new_tokens: int = _setting(0, "e", "longest generation; 0 is the published 170 (QA) or 200 (report)", low=0)
    test_items: int = _setting(0, "e", "score a seeded sample of so many items; 0 is all", low=0)
    # machine
    results: str = _setting("results", LLM, "where runs leave their results", path=True)
    codes_root: str = _setting("results/codes", LLM, "where encoded ECGs are kept", path=True)
    num_processes: int = _setting(0, ALL, "processes, a machine; 0 is one a GPU, one without a GPU", low=0)
    launcher: str = _setting("", ALL, "what starts the processes of several machines; empty is what HOSTFILE or NODES need (docs/clusters.md)", choices=("", "deepspeed", "torchrun"))
    hostfile: str = _setting("", ALL, "the machines and how many GPUs each has, as DeepSpeed reads it: lines `name slots=4`; only the machine that starts the others reads it", path=True)
    include: str = _setting("", ALL, "of the hostfile, the machines and GPUs to use, as DeepSpeed's --include: `a:0,1@b:2,3`")
    nodes: int = _setting(1, ALL, "machines (torchrun); the same command starts on each", low=1)
    node_rank: int = _setting(-1, ALL, "number of this machine, from 0, where the same command starts on each; -1 lets DeepSpeed start the others over ssh, torchrun number them", low=-1)
    rendezvous: str = _setting("", ALL, "host:port where the machines meet; with a hostfile by default its first machine's port 29500")
    threads: int = _setting(0, ALL, "CPU threads a process; 0 shares the cores among the processes", low=0)
    device: str = _setting("auto", ALL, "where to compute", choices=("auto", "cpu", "cuda"))

    def parts(self, stage):
        """The stage's settings in three dicts, by what another value of them means for a run that was begun.

        Returns
        -------
        decides : dict
            It would be another run. Paths are not in it: what lies there counts, and that is for the caller to hash.
        length : dict
            The run goes on, further or adding something (to an exam: controls).
        other : dict
            It goes on and ends as it would have.
        """
        exam = stage == "eval"  # whose answers do not depend on the batch
        free, length = OTHER | ({"batch_size"} if exam else set()), LENGTH | ({"controls"} if exam else set())
        parts = {}, {}, {}
        for name, value in self.of_stage(stage).items():
            path = FIELDS[name.upper()].metadata["path"]
            parts[1 if name in length else 2 if path or name in free else 0][name.upper()] = value
        return parts

    def fingerprint(self, stage):
        """Hash of the settings that decide the stage's result."""
        return sha256_json(self.parts(stage)[:2])

    def of_stage(self, stage):
        """The settings that the stage reads, as a dict."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if stage[0] in f.metadata["stages"]}


FIELDS = {field.name.upper(): field for field in dataclasses.fields(Settings)}


def load_settings(stage, argv):
    """Settings of ``stage`` from ``[ENV FILE] [KEY=VALUE ...]``; a fault in them is a `UserError`.

    Parameters
    ----------
    stage : {"tokenizer", "pretrain", "finetune", "eval"}
    argv : list of str
    """
    files, pairs = split_arguments(argv)
    if len(files) > 1:
        raise UserError(f"more than one env file: {' '.join(files)} (settings are written KEY=VALUE)")
    values = {}
    if files:
        for key, text in _env_settings(files[0]).items():
            values[key.lower()] = parse_value(_field(key, f"{files[0]}: "), text, REPOSITORY, f"{files[0]}: ")
    for word in pairs:
        key, text = word.split("=", 1)
        if key not in FIELDS and text.endswith(".env"):
            raise UserError(f"{word}: no such env file, and {key} is no setting")
        values[key.lower()] = parse_value(_field(key), text, Path.cwd())
    settings = Settings(**values)
    _check_stage(settings, stage)
    return settings


def pick(settings, cls):
    """The dataclass ``cls``, each field from the setting of the same name: what code below an entry point is given."""
    return cls(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(cls)})


def given_keys(argv):
    """Keys that the command line or the env file give."""
    files, pairs = split_arguments(argv)
    return {word.split("=", 1)[0] for word in pairs}.union(*map(_env_settings, files))


def unused_keys(stage, argv):
    """Keys that were given but that this stage doesn't read, for a line that says so."""
    return sorted(key for key in given_keys(argv) if stage[0] not in FIELDS[key].metadata["stages"])


def split_arguments(argv):
    """The env files and the KEY=VALUE words of a command line; a word with "=" that is a file is an env file."""
    files = [word for word in argv if "=" not in word or os.path.isfile(env_path(word))]
    return files, [word for word in argv if word not in files]


def env_path(path):
    """Where an env file lies: env/demo/pretrain.env is found from any folder."""
    return REPOSITORY / path if not os.path.exists(path) and os.path.exists(REPOSITORY / path) else path


def _env_settings(path):
    """Key -> text of an env file, without the variables that only its other lines refer to."""
    values, used = read_env_file(env_path(path))
    return {key: text for key, text in values.items() if key in FIELDS or key not in used}


def _field(key, where=""):
    if key not in FIELDS:
        import difflib

        close = difflib.get_close_matches(key, FIELDS, 1)
        hint = f"did you mean {close[0]}?" if close else "docs/settings.md lists all"
        raise UserError(f"{where}unknown setting {key}; {hint}")
    return FIELDS[key]


def _check_stage(settings, stage):
    expected = {"eval": "test"}.get(stage, stage)
    if settings.stage not in ("", expected):
        raise UserError(f"STAGE={settings.stage} does not fit this launcher, which runs stage {expected}")
    for name, value in settings.of_stage(stage).items():
        for path in value_parts(value) if FIELDS[name.upper()].metadata["must_exist"] else ():
            if path and path not in NAMES and not os.path.exists(path):
                hint = "; LOCAL_LLM_PATH=tiny takes the embedded LLM" if name == "local_llm_path" else ""
                raise UserError(f"{name.upper()}={path}: no such file or folder{hint}")


def require(settings, *names):
    """A `UserError` if one of these settings is empty."""
    for name in names:
        if not getattr(settings, name):
            raise UserError(f"{name.upper()} is not set: {FIELDS[name.upper()].metadata['help']}")


def table():
    """The table of docs/settings.md, as Markdown."""
    lines = ["| setting | stages | default | meaning |", "|---|---|---|---|"]
    for key, field in FIELDS.items():
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        elif isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, float):
            default = f"{default:g}"
        stages = ", ".join(stage for stage in STAGES if stage[0] in field.metadata["stages"])
        stages = "all" if stages.count(",") == 3 else stages
        choices = field.metadata["choices"]
        options = f" ({', '.join(f'`{c}`' for c in choices if c)})" if choices else ""
        default = f"`{default}`" if default != "" else ""
        lines.append(f"| `{key}` | {stages} | {default} | {field.metadata['help']}{options} |")
    return "\n".join(lines)


@entry_point
def main(argv):
    """Print the table, or check ``STAGE [ENV FILE] [KEY=VALUE ...]`` and print the settings."""
    if argv == ["--table"]:
        print(table())
        return
    if not argv or argv[0] not in STAGES:
        raise UserError(f"usage: python -m utils.settings --table | {{{','.join(STAGES)}}} [ENV FILE] [KEY=VALUE ...]")
    for name, value in load_settings(argv[0], argv[1:]).of_stage(argv[0]).items():
        print(f"{name.upper()}={value}")


if __name__ == "__main__":
    main(sys.argv[1:])
