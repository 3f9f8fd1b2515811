"""Set up the devices and processes of a training run so that the same seed gives byte-identical results."""

from __future__ import annotations

import os
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from stages.core.errors import ParameterError
from stages.params import Params, locate_parameter

# The number of threads affects the order of additions, and therefore the last bits of a weight. The number is fixed, so
# that a run gives the same bytes on machines with different numbers of cores.
THREADS = 2


def start_fabric(params: Params) -> Fabric:
    """Set up training on the device `params.device`, in all processes that torchrun started, and return the fabric.

    From then on, torch uses deterministic kernels in this process. If there is only one process, torch uses THREADS
    threads.

    Raises:
        ParameterError: The device is not available.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without this, cuBLAS is not deterministic
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    try:
        fabric = Fabric(
            accelerator=params.device,
            devices=local,
            num_nodes=world // local,
            strategy="ddp" if world > 1 else "auto",
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            locate_parameter("device"),
            f"found {params.device!r}: {reason}",
            "auto or cpu on this machine",
            "set device: auto",
        ) from None
    fabric.launch()
    return fabric


def sum_over_ranks(fabric: Fabric, value: Tensor) -> Tensor:
    """Return the sum of `value` over all processes, on the CPU."""
    if fabric.world_size == 1:
        return value
    total = cast(Tensor, fabric.all_reduce(value.to(fabric.device), reduce_op="sum"))
    return total.cpu()
