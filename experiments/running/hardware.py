"""What this machine multiplies matrices in. Decided by capability, never by timing.

A run that is continued, or repeated, must decide alike.
"""

from collections.abc import Mapping

import torch

from experiments.configuration.distributed import Strategy
from experiments.running.fit import Precision
from results import provenance

FP32_OVER_BF16 = 2.0  # seconds of a tiny step in fp32 over bf16 on one core, measured 1.9 to 2.2 with AVX512-BF16


def multiplies_in() -> str:
    """The fastest format its hardware multiplies in, and by what: "bf16 (AMX)", "fp32"."""
    if torch.cuda.is_available():
        return "bf16 (CUDA)" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32 (CUDA)"
    has = torch.cpu.get_capabilities()
    if has.get("amx_bf16"):
        return "bf16 (AMX)"
    return "bf16 (AVX512-BF16)" if has.get("avx512_bf16") else "fp32"


def best_precision() -> Precision:
    """bf16 where the hardware multiplies in it, else fp32: emulated bf16 is slower than either."""
    return "bf16" if multiplies_in().startswith("bf16") else "fp32"


def environment(ranks: int = 1, strategy: Strategy = "ddp") -> Mapping[str, str]:
    """What a run of this process and others may depend on besides its code, as its record has it.

    ranks, strategy: processes that did it together, and how they held the weights; only of more than one it is said.
    """
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found = provenance.environment(name, torch.get_num_threads()) | {"multiplies_in": multiplies_in()}
    return found | ({"ranks": str(ranks), "strategy": strategy} if ranks > 1 else {})
