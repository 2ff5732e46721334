"""`python -m r1rl` under FSDP2 on CPU processes.

accelerate shards on accelerators only; here it takes its processes for such. The environment is
`ENVIRONMENT`:

    torchrun --nproc_per_node 2 tests/sharded_launch.py grpo recipe.yaml
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from r1rl.cli.main import main

ENVIRONMENT = {
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_USE_FSDP": "true",
    "OMP_NUM_THREADS": "1",
    # What accelerate launch makes of recipes/accelerate/fsdp2.yaml.
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
}


construct = PartialState.__init__


def start_processes(self: PartialState, *args: Any, **kwargs: Any) -> None:
    """Replace the constructor of accelerate's state, which all of its instances share."""
    is_first = not self._shared_state
    construct(self, *args, **kwargs)
    if is_first:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = start_processes  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
