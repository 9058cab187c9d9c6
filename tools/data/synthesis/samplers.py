"""Where texts come from: a model in a folder (transformers), a chat service (any callable), and the memory of both.

`RecordedSampler` keeps what was sampled in a file, one line per group of prompts, as soon as it is there. A run that is
killed and started again reads it back: nothing is paid twice, and a local model's texts are the same as if there had
been no kill, since the seed of a group depends on its contents alone and not on what was sampled before it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain_crew.errors import DatasetError, ModelError
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.tools.data.local_model import load_for_replies
from posttrain_crew.tools.data.synthesis.base import Message, OnSampled, Sampler, Usage

__all__ = ["LocalModelSampler", "RecordedSampler"]


class LocalModelSampler:
    """A causal language model in a folder, on the GPU where there is one, else on OMP_NUM_THREADS cores.

    Args:
        folder: a Hugging Face model folder; no code of it is executed (`trust_remote_code` stays off).
        name: what rows call it; the folder's path by default.
        batch_size: sequences at a time (prompts times samples).
    """

    def __init__(self, folder: Path, name: str | None = None, batch_size: int = 64) -> None:
        self._folder = folder
        self._batch_size = batch_size
        self._loaded: tuple[Any, Any, str] | None = None
        self.model = name or str(folder)
        self.usage = Usage()
        self.left_out: Counter[str] = Counter()

    @property
    def identity(self) -> str:
        """Name, size and time of the model's files: a folder that was written anew is another model."""
        try:
            files = sorted(path for path in self._folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
            stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        except OSError as error:
            raise ModelError(f"the model folder {self._folder} cannot be read: {error.strerror or error}") from error
        return sha256_text(canonical_json([self.model, stats, self._batch_size]))[:16]

    def group(self, n: int) -> int:
        return max(1, self._batch_size // n)

    def sample(
        self,
        prompts: Sequence[list[Message]],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        on_sampled: OnSampled | None = None,
    ) -> list[list[str]]:
        """See `Sampler`. A prompt that leaves no room for `max_tokens` in the context is left out: `too_long`."""
        texts: list[list[str]] = []
        size = self.group(n)
        for start in range(0, len(prompts), size):
            batch = list(prompts[start : start + size])
            told = self._generate(batch, n, temperature, max_tokens, seed)
            for offset, (said, usage) in enumerate(told):
                texts.append(said)
                self.usage += usage
                self.left_out["too_long"] += not said
                if on_sampled is not None:
                    on_sampled(start + offset, said, usage)
        self.left_out += Counter()  # drops zeros
        return texts

    def _generate(
        self, batch: list[list[Message]], n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[tuple[list[str], Usage]]:
        import torch

        tokenizer, model, device = self._load()
        context = getattr(model.config, "max_position_embeddings", None)
        rendered = [_rendered(tokenizer, prompt) for prompt in batch]
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in rendered]
        fitting = [i for i, length in enumerate(lengths) if context is None or length + max_tokens <= context]
        answers: list[tuple[list[str], Usage]] = [([], Usage())] * len(batch)
        if not fitting:
            return answers
        encoded = tokenizer([rendered[i] for i in fitting], return_tensors="pt", padding=True, add_special_tokens=False)
        encoded = {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}
        how: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            # top_k is 50 unless told otherwise: texts would not come from the model's own distribution
            how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            how["num_return_sequences"] = n
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(_seed_of(seed, batch, n, temperature, max_tokens))
            out = model.generate(**encoded, max_new_tokens=max_tokens, pad_token_id=tokenizer.pad_token_id, **how)
        made = out[:, encoded["input_ids"].shape[1] :]  # (prompts * n, new tokens)
        each = made.shape[0] // len(fitting)
        for place, i in enumerate(fitting):
            replies = made[place * each : (place + 1) * each]
            said = [tokenizer.decode(ids, skip_special_tokens=True) for ids in replies]
            count = int((replies != tokenizer.pad_token_id).sum())
            answers[i] = (said * n if each == 1 else said, Usage(1, lengths[i], count, 0.0))
        return answers

    def _load(self) -> tuple[Any, Any, str]:
        if self._loaded is None:
            self._loaded = load_for_replies(self._folder)
        return self._loaded


class RecordedSampler:
    """Another sampler, whose texts are kept in a file and never asked for twice.

    Args:
        path: JSON lines {key, texts, requests, prompt_tokens, completion_tokens, usd}; a line that a kill cut is
            dropped.

    Raises:
        DatasetError: the file cannot be read.
    """

    def __init__(self, inner: Sampler, path: Path) -> None:
        self._inner = inner
        self._path = path
        self._known: dict[str, list[list[str]]] = {}
        self.model = inner.model
        self.left_out = inner.left_out
        self.usage = Usage()
        """Of all attempts together."""
        self.replayed = 0
        """Prompts that were answered from the file."""
        self._read()

    @property
    def identity(self) -> str:
        return self._inner.identity

    def group(self, n: int) -> int:
        return self._inner.group(n)

    def sample(
        self,
        prompts: Sequence[list[Message]],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        on_sampled: OnSampled | None = None,
    ) -> list[list[str]]:
        """See `Sampler`. A prompt that was left out is not kept: a later attempt asks for it again.

        Where prompts do not depend on each other, each of the `n` texts is kept by itself, with seeds `seed`,
        `seed + 1`, ...: a kill in the middle of a prompt loses none of them.
        """
        if n > 1 and self.group(n) == 1:
            texts: list[list[str]] = [[] for _ in prompts]
            for turn in range(n):
                told = self.sample(prompts, n=1, temperature=temperature, max_tokens=max_tokens, seed=seed + turn)
                for kept, said in zip(texts, told, strict=True):
                    kept.extend(said)
        else:
            texts = self._sample(prompts, n, temperature, max_tokens, seed)
        if on_sampled is not None:
            for index, said in enumerate(texts):
                on_sampled(index, said, Usage())
        return texts

    def _sample(
        self, prompts: Sequence[list[Message]], n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[str]]:
        size = self.group(n)
        groups = [list(prompts[start : start + size]) for start in range(0, len(prompts), size)]
        how = [self.identity, n, temperature, max_tokens, seed]
        keys = [sha256_text(canonical_json([*how, group])) for group in groups]
        missing = {key: group for key, group in zip(keys, groups, strict=True) if key not in self._known}
        if missing:
            self._ask(missing, n, temperature, max_tokens, seed)
        for key, group in zip(keys, groups, strict=True):
            if key not in missing:
                self.replayed += len(group)
                if empty := sum(not said for said in self._known[key]):
                    self.left_out["too_long"] += empty  # the only reason for which a kept group has a gap
        return [
            said for key, group in zip(keys, groups, strict=True) for said in self._known.get(key, [[] for _ in group])
        ]

    def _ask(
        self, missing: dict[str, list[list[Message]]], n: int, temperature: float, max_tokens: int, seed: int
    ) -> None:
        places = [(key, i) for key, group in missing.items() for i in range(len(group))]
        open_groups: dict[str, dict[int, tuple[list[str], Usage]]] = {key: {} for key in missing}

        def on_sampled(index: int, texts: list[str], usage: Usage) -> None:
            key, place = places[index]
            got = open_groups[key]
            got[place] = (texts, usage)
            if len(got) == len(missing[key]):
                self._keep(key, [got[i] for i in range(len(got))])

        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._inner.sample(
            [prompt for group in missing.values() for prompt in group],
            n=n,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            on_sampled=on_sampled,
        )

    def _keep(self, key: str, told: list[tuple[list[str], Usage]]) -> None:
        total = sum((usage for _, usage in told), Usage())
        self.usage += total
        texts = [said for said, _ in told]
        if any(said for said in texts):
            self._known[key] = texts
        else:
            key = ""  # paid for nothing: the cost is kept, and the prompt may be asked again
        line = {
            "key": key,
            "texts": texts if key else [],
            "requests": total.requests,
            "prompt_tokens": total.prompt_tokens,
            "completion_tokens": total.completion_tokens,
            "usd": total.usd,
        }
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            stream.flush()

    def _read(self) -> None:
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
            if content and not content.endswith(b"\n"):
                content = content[: content.rfind(b"\n") + 1]  # a line that was being written when the kill came
                self._path.write_bytes(content)
            for line in content.decode("utf-8").split("\n"):
                if line.strip():
                    row = json.loads(line)
                    if row["key"]:
                        self._known[row["key"]] = [list(map(str, said)) for said in row["texts"]]
                    self.usage += Usage(
                        int(row["requests"]), int(row["prompt_tokens"]), int(row["completion_tokens"]), row["usd"]
                    )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"the samples in {self._path} cannot be read: {error!r}. Delete the file to pay for them again, or "
                "give another folder."
            ) from error


def _rendered(tokenizer: Any, prompt: list[Message]) -> str:
    if tokenizer.chat_template:
        return str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
    return "\n".join(message["content"] for message in prompt) + "\n"


def _seed_of(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(canonical_json(parts).encode(), digest_size=4).digest(), "big")
