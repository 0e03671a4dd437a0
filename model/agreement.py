"""What a stage takes over from the adapter that it starts from or examines, and what may not differ; no weight is read.

An adapter knows its task, prompt words, lead order, tuning, rank, scale and stage 2's objective. A setting that is not
given is taken from it; one that is given and says something else is an error, or is named in OVERRIDE.
"""

from dataclasses import replace

from model.checkpoint_files import CARD, resolve_checkpoint
from model.prompts import read_prompts
from utils.setting_values import value_parts
from utils.settings import FIELDS
from utils.tools import UserError, read_json

PUBLISHED = {"TUNING": "lora", "LORA_R": 64, "LORA_ALPHA": 16}  # all that is known of an authors' file


def adapter_facts(path):
    """What the adapter at ``path`` says it was trained with: setting -> value, and the prompts as ``PROMPTS``.

    LoRA's rank and scale come from PEFT's file, which loads, not from the card.
    """
    path = resolve_checkpoint(path)
    if path.is_file():
        return dict(PUBLISHED)
    card = read_json(path / CARD)
    settings, stage = card.get("settings", {}), card.get("stage")
    keys = ["LEAD_ORDER", "TUNING", *(["PRETRAIN_OBJECTIVE"] if stage == "pretrain" else ["TASKTYPE"])]
    facts = {key: settings[key] for key in keys if key in settings}
    if "TASKTYPE" in facts:  # one text, from before a run could have several
        facts["TASKTYPE"] = (facts["TASKTYPE"],) if isinstance(facts["TASKTYPE"], str) else tuple(facts["TASKTYPE"])
    if (path / "adapter_config.json").is_file():
        lora = read_json(path / "adapter_config.json")
        facts |= {"TUNING": "lora", "LORA_R": lora["r"], "LORA_ALPHA": lora["lora_alpha"]}
    if "TASKTYPE" in facts and "prompts" in card.get("inputs", {}):
        facts["PROMPTS"] = card["inputs"]["prompts"]
    return facts


def agree(settings, given, key, stage):
    """The settings and prompt words that go with an adapter.

    Parameters
    ----------
    settings : Settings
    given : set of str
        Keys that the user gave.
    key : {"PRETRAIN_PATH", "CKP_PATH"}
        The setting that names the adapter.
    stage : {"finetune", "eval"}

    Returns
    -------
    settings : Settings
    prompts : dict
    lines : list of str
        What was taken over, and what was not.
    """
    path = getattr(settings, key.lower())
    facts = adapter_facts(path) if path else {}
    words, prompts, lines, faults = facts.pop("PROMPTS", None), read_prompts(settings.prompts), [], []
    if stage == "eval" and "PRETRAIN_OBJECTIVE" in facts and "tasktype" not in settings.override:
        faults.append("what stage 2 left, which has learned no task (OVERRIDE=tasktype)")
    for name, value in facts.items():
        field, wanted = name.lower(), getattr(settings, name.lower())
        # One of an adapter's tasks is enough: an exam is of one, and the next stage may leave one out if asked to.
        part = name == "TASKTYPE" and set(wanted) <= set(value) and (name in given or stage == "eval")
        if wanted == value or part:
            continue
        said = ",".join(value_parts(value)) if name == "TASKTYPE" else value
        asked = ",".join(value_parts(wanted)) if name == "TASKTYPE" else wanted
        if field in settings.override:
            lines.append(f"OVERRIDE: {name}={asked}, trained with {said}")
        elif name in given:
            faults.append(f"trained with {name}={said}, not {asked}{_way_out(field)}")
        else:
            settings = replace(settings, **{field: value})
            if stage[0] in FIELDS[name].metadata["stages"]:
                lines.append(f"{name}={said}")
    trained = set(facts["TASKTYPE"]) if words else set()
    if any(words[task] != prompts[task] for task in settings.tasktype if task in trained):
        if "prompts" in settings.override:
            lines.append("OVERRIDE: PROMPTS, trained with other words")
        elif "PROMPTS" in given:
            faults.append(f"trained with other prompt words than PROMPTS={settings.prompts}{_way_out('prompts')}")
        else:
            prompts = words
            lines.append("PROMPTS: its words")
    if faults:
        raise UserError(f"{key}={path}: {'; '.join(faults)}; without these settings, its own are taken")
    return settings, prompts, [f"{key}: {line}" for line in lines]


def _way_out(field):
    return f" (OVERRIDE={field})" if field in FIELDS["OVERRIDE"].metadata["choices"] else ""
