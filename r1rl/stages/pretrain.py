"""draft"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from r1rl.config.schema import ArchitectureConfig, PretrainRecipe
from r1rl.grpo.setup import make_optimizer, make_schedule
from r1rl.seeds import derive_seed


def build_model(architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        num_hidden_layers=architecture.num_layers,
        num_attention_heads=architecture.num_heads,
        num_key_value_heads=architecture.num_key_value_heads,
        head_dim=architecture.head_dim,
        intermediate_size=architecture.intermediate_size,
        max_position_embeddings=architecture.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(derive_seed(seed, "initialisation"))
    return Qwen3ForCausalLM(config)


def train(model: Qwen3ForCausalLM, rows: np.ndarray, recipe: PretrainRecipe, pad: int, on_step: Callable[[int, torch.Tensor], None]) -> None:
    device = next(model.parameters()).device
    data = torch.from_numpy(rows.astype(np.int16)).to(device)
    batch = max(1, recipe.batch_tokens // recipe.sequence_length)
    optimizer = make_optimizer(model, recipe.optimizer)
    schedule = make_schedule(optimizer, recipe.max_steps, recipe.optimizer)
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "batches"))
    order = torch.empty(0, dtype=torch.int64)
    model.train()
    for step in range(recipe.max_steps):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(len(data), generator=generator)])
        chosen, order = order[:batch], order[batch:]
        tokens = data[chosen.to(device)].long()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        targets = tokens[:, 1:].masked_fill(tokens[:, 1:] == pad, -100)
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.max_grad_norm)
        optimizer.step()
        schedule.step()
        on_step(step, loss.detach())
