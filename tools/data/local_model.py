"""A causal language model in a folder, ready to write replies: for the label probe and for sampling."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from posttrain_crew.errors import ModelError
from posttrain_crew.tools.data.turn_end import end_ids, prepare_for_chat

__all__ = ["load_for_replies"]


def load_for_replies(folder: Path) -> tuple[Any, Any, str]:
    """(tokenizer that pads on the left, model, device): the GPU where there is one, else OMP_NUM_THREADS cores.

    No code of the folder is executed (`trust_remote_code` stays off). Raises ModelError.
    """
    import torch  # seconds to import
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model {folder} does not load: {str(error)[:500]}") from error
    if tokenizer.chat_template:
        prepare_for_chat(tokenizer, model.generation_config.eos_token_id)  # a reply ends with its turn
        model.generation_config.eos_token_id = end_ids(tokenizer.eos_token_id, model.generation_config.eos_token_id)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.to(device).eval(), device
