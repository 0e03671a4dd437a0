"""The engine that trains: DeepSpeed's ZeRO-2 around the model, and what makes its steps smaller or faster."""

import torch

from utils.tools import REPOSITORY, UserError, read_json

BUCKET = 50_000_000  # elements of a gradient bucket; DeepSpeed's own 500 million would be 2 GB


def deepspeed_engine(model, options, process):
    """A DeepSpeed engine around the model, as ds_config_zero2.json and the settings say."""
    import deepspeed

    if process.device.type == "cpu":
        # Its compilation takes a minute, and one that is killed blocks every later run; gloo does the same work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)
    _prepare(model, options)
    config = read_json(REPOSITORY / "ds_config_zero2.json")
    bucket = min(BUCKET, sum(parameter.numel() for parameter in trained))
    config["zero_optimization"] = {"reduce_bucket_size": bucket} | config["zero_optimization"]
    config["train_micro_batch_size_per_gpu"] = options.batch_size
    config["gradient_accumulation_steps"] = options.accumulation
    config["bf16"] = {"enabled": process.dtype == torch.bfloat16}
    exact = [parameter.detach().clone() for parameter in trained] if process.dtype == torch.bfloat16 else []
    engine, _, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    for parameter, value in zip(trained, exact, strict=False):  # its masters are roundings of what was trained so far
        deepspeed.utils.safe_set_full_fp32_param(parameter, value.to(parameter.device))
    engine.train()
    return engine


def _prepare(model, options):
    """Gradient checkpointing and compilation, as the settings say: neither changes what is computed."""
    llm = model.get_base_model() if hasattr(model, "get_base_model") else model
    if options.gradient_checkpointing:
        if not llm.supports_gradient_checkpointing:
            raise UserError(f"GRADIENT_CHECKPOINTING=true: this LLM ({llm.config.model_type}) has none in transformers")
        llm.activation_checkpointing_enable({"use_reentrant": False})
    if options.compile:
        compile_layers(llm)


def compile_layers(llm, backend="inductor"):
    """Compile each of the LLM's layers, which are the longest list of modules in it, for sequences of any length."""
    lists = [module for module in llm.get_decoder().modules() if isinstance(module, torch.nn.ModuleList)]
    if not lists:
        raise UserError(f"COMPILE=true: this LLM ({llm.config.model_type}) has no list of layers")
    for layer in max(lists, key=len):
        layer.compile(dynamic=True, backend=backend)


def float32_masters(engine, writes):
    """Name -> float32 tensor on the CPU of what trains, where the engine's own parameters are bf16 roundings of it.

    All processes must call it, since each holds a part; empty in float32, and on processes that do not write.
    """
    if not engine.bfloat16_enabled():
        return {}
    from deepspeed.utils import safe_get_full_fp32_param

    known, masters = {}, {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            if id(parameter) not in known:
                master = safe_get_full_fp32_param(parameter)
                known[id(parameter)] = master.cpu() if writes else None
            masters[name] = known[id(parameter)]
    return masters if writes else {}
