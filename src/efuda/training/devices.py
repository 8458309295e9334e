"""One process or several: who we are, what all of them add up to, and who has which part of a batch.

`torchrun --nproc-per-node 2 -m efuda train …` and `accelerate launch` start several and say so in the environment, as
PyTorch's own launcher defines it (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT); without them there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from efuda.errors import InputError

__all__ = ["Devices", "devices", "is_main"]


def is_main() -> bool:
    """Whether this process is the one that speaks and writes."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Devices:
    """`world` processes, of which we are `rank`, each with a `device` of its own."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def part(self, batch: int) -> tuple[int, int]:
        """Our part of a batch, from one place to another; an even place and the next are never parted."""
        pairs = -(-batch // 2)
        start, stop = (2 * (pairs * rank // self.world) for rank in (self.rank, self.rank + 1))
        return min(start, batch), min(stop, batch)

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes."""
        if self.world == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(summed)
        return [float(value) for value in summed.tolist()]

    def add_up(self, counts: NDArray[np.int64]) -> None:
        """Add the counts of all processes into those of each."""
        if self.world > 1:
            summed = torch.from_numpy(counts).to(self.device)
            distributed.all_reduce(summed)
            counts[...] = summed.cpu().numpy()

    def gather(self, value: Any) -> list[Any]:
        """What every process has, by rank."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        distributed.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            distributed.barrier()

    def shared(self, model: nn.Module, *, partly: bool) -> nn.Module:
        """The model whose gradients are averaged over all processes; norms see whole batches where devices can.

        Args:
            partly: whether some of its weights have no part in the loss.
        """
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(model, device_ids=[self.device], find_unused_parameters=partly)
        return DistributedDataParallel(model, find_unused_parameters=partly)


_PATIENCE: Final = timedelta(minutes=10)  # then a process that hangs is given up, and torchrun begins again


@contextmanager
def devices() -> Iterator[Devices]:
    """Join the others, if there are any, for as long as the block lasts."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Devices(device)
        return
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"The {world} processes do not find each other ({said}). Start them with torchrun or accelerate launch, "
            "where they can reach each other, and run the same command again."
        ) from error
    try:
        yield Devices(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
