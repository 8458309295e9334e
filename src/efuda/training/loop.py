"""The loop: steps, epochs, validation, checkpoints; stopped anywhere and started again, it ends with the same weights.

Nothing depends on what ran before a step but the weights, the optimiser and the counters, and those are in every
checkpoint: the order of the pictures follows from (seed, epoch), what is random in a step from (seed, step).
"""

from __future__ import annotations

import json
import math
import os
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from efuda.artifacts import Dataset, Posts
from efuda.errors import Diverged, RecipeError, Stopped
from efuda.files import write_text
from efuda.preprocess import Preprocess
from efuda.progress import Progress
from efuda.recipes import Recipe
from efuda.training import checkpoints
from efuda.training.devices import Devices
from efuda.training.feeding import Feeding, Part
from efuda.training.loading import Batch, batches, filters_of, shuffled
from efuda.training.losses import per_picture, per_tag
from efuda.training.measuring import Measured, measure
from efuda.training.memory import find_micro_batch
from efuda.training.model import TagModel, begin_from, build
from efuda.training.optim import averaged, optimizer, rate
from efuda.training.report import write_report
from efuda.training.trackers import Trackers

__all__ = ["Loop"]

_TRACKED_EVERY_S: Final = 10.0


@dataclass
class Place:
    """Where the run is: everything beside weights and optimiser that the next step depends on."""

    epoch: int = 0
    batch: int = 0  # within the epoch
    loss_sum: float = 0.0  # of this epoch, over `pictures`
    pictures: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    micro_batch: int = 0  # as it was found to fit
    log: list[dict[str, Any]] = field(default_factory=list)


class Loop:
    """One run, in one process or in each of several.

    Args:
        stop: asked after every step; True means: keep a checkpoint and leave with `Stopped`.
    """

    def __init__(
        self,
        dataset: Dataset,
        out: Path,
        recipe: Recipe,
        devices: Devices,
        *,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self.dataset, self.out, self.recipe, self.devices = dataset, out, recipe, devices
        self.progress, self.stop = progress, stop
        self.device, self.folder = devices.device, out / "checkpoints"
        self.precision = _precision(recipe.train.precision, self.device)
        self.train_posts, self.validation = dataset.posts("train"), dataset.posts("validation")
        self.steps_an_epoch = -(-len(self.train_posts) // recipe.train.batch)
        self.steps = self.steps_an_epoch * recipe.train.epochs
        self.place = Place()
        torch.manual_seed(recipe.train.seed)
        self.model = self._placed(self._begun())
        self.feeding = Feeding(recipe, dataset.vocabulary, devices)
        self.ema = averaged(self.model, recipe.train.ema) if recipe.train.ema else None
        self.optimizer = optimizer(self.model, recipe.train, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.network: Any = devices.shared(self.model, partly=self.model.head.reads_map)
        if recipe.train.compile:
            self.network = torch.compile(self.network)
        self.trackers: Trackers | None = None
        self._saved_at = self._began = self._tracked_at = time.monotonic()
        self._seen_before = self._waited = 0.0

    @property
    def judged(self) -> TagModel:
        """The weights that are measured and exported: the averaged ones where there are any."""
        return self.ema.module if self.ema else self.model  # type: ignore[return-value]

    def run(self) -> list[dict[str, Any]]:
        """Train to the end, from the last checkpoint if there is one; returns one entry an epoch."""
        self._resume()
        self._check_sides()
        self._find_micro_batch()
        if self.devices.main:
            self.trackers = Trackers(self.recipe.train.trackers, self.out, self.recipe.model_dump(mode="json"))
        try:
            while self.place.epoch < self.recipe.train.epochs:
                self._epoch()
        finally:
            if self.trackers:
                self.trackers.close()
        return self.place.log

    def measure(self, posts: Posts, name: str) -> Measured:
        """The judged weights on a split."""
        model, recipe = self.judged, self.recipe
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                return measure(
                    self._judge,
                    posts,
                    len(self.dataset.vocabulary),
                    Preprocess(size=recipe.model.size),
                    name=name,
                    batch=4 * (self.place.micro_batch or recipe.train.batch),
                    workers=self._workers(),
                    devices=self.devices,
                    progress=self.progress,
                )
        finally:
            model.train(was_training)

    def _judge(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits, and the sum of the losses; every label counts, as in the reference run."""
        with self._autocast():
            logits, _ = self.judged(self.feeding.normalised(self.feeding.pictures(batch)))
        labels = batch.labels(len(self.dataset.vocabulary), self.device)
        return logits, per_picture(logits.float(), labels, self.recipe.loss, weights=self.feeding.tag_weights).sum()

    def _epoch(self) -> None:
        place, recipe = self.place, self.recipe
        seed, posts = recipe.train.seed, len(self.train_posts)
        loader = batches(
            self.train_posts,
            shuffled(posts, seed=seed, epoch=place.epoch),
            Preprocess(size=self._side(place.epoch)),
            batch=recipe.train.batch,
            workers=self._workers(),
            first=place.batch,
            part=self.devices.part(recipe.train.batch),
            filters=recipe.augment.filters,
            chosen=filters_of(posts, recipe.augment.filters, seed=seed, epoch=place.epoch),
            reduced=True,
        )
        self.network.train()
        asked = time.monotonic()
        for batch in loader:
            self._waited += time.monotonic() - asked
            pictures, stops = self.devices.total([len(batch.pictures), float(self.stop())])
            if pictures:
                self._step(batch, int(pictures))
            place.batch += 1
            self._report()
            self._maybe_stop(stops > 0)
            asked = time.monotonic()
        self._finish_epoch()

    def _step(self, batch: Batch, pictures: int) -> None:
        """One step of the optimiser over so many pictures of all devices."""
        recipe, place = self.recipe.train, self.place
        step = place.epoch * self.steps_an_epoch + place.batch
        torch.manual_seed((recipe.seed * 1_000_003 + step) * 4_001 + self.devices.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(step, self.steps, recipe) * group["multiple"]
        self.optimizer.zero_grad(set_to_none=True)
        parts, last = list(self.feeding.parts(batch, step, place.micro_batch)), None
        value = 0.0
        for number, part in enumerate(parts, start=1):
            with self._together(number == len(parts)), self._autocast():
                logits, _ = self.network(part.pictures)
                lost = (
                    per_picture(
                        logits.float(), part.labels, self.recipe.loss, weights=part.weights, epoch=place.epoch
                    ).sum()
                    / pictures
                )
                last = (logits, part)
            with self._together(number == len(parts)):
                self.scaler.scale(lost * self.devices.world).backward()  # type: ignore[no-untyped-call]
            value += float(lost.detach())
        (value,) = self.devices.total([value])
        if not math.isfinite(value):
            raise Diverged(self._divergence(step, value, last))
        if recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update_parameters(self.model)
        place.loss_sum += value * pictures
        place.pictures += pictures

    def _together(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are added up over devices with the last micro-batch only."""
        network = getattr(self.network, "_orig_mod", self.network)
        return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()

    def _divergence(self, step: int, value: float, last: tuple[Tensor, Part] | None) -> str:
        names = self.dataset.vocabulary.names
        tags: list[str] = []
        if last is not None:
            logits, part = last
            lost = per_tag(logits.detach().float(), part.labels, self.recipe.loss, weights=part.weights)
            tags = [names[row] for row in torch.nonzero(~lost.isfinite().all(dim=0)).flatten().tolist()]
        where = (
            "in every tag"
            if len(tags) == len(names)
            else f"first in {', '.join(tags[:3])}"
            if tags
            else "on another device"
        )
        return (
            f"The loss became {value} at step {step + 1} of {self.steps} (epoch {self.place.epoch + 1}), {where}. The "
            f"last checkpoint is kept in {self.folder}; lower the rate with --set train.learning_rate="
            f"{self.recipe.train.learning_rate / 10:g}, into another --out"
        )

    def _finish_epoch(self) -> None:
        place, recipe = self.place, self.recipe.train
        measured = self.measure(self.validation, "validate")
        step = (place.epoch + 1) * self.steps_an_epoch
        entry = {
            "epoch": place.epoch + 1,
            "step": step,
            "learning_rate": rate(step - 1, self.steps, recipe),
            "train_loss": place.loss_sum / max(place.pictures, 1),
            "validation": dict(measured.numbers),
        }
        place.log.append(entry)
        chosen = measured.numbers[recipe.select] * (-1 if recipe.select == "loss" else 1)
        is_best = chosen > place.best
        place.epoch, place.batch, place.loss_sum, place.pictures = place.epoch + 1, 0, 0.0, 0
        if is_best:
            place.best, place.best_epoch = chosen, place.epoch
            if self.devices.main:
                checkpoints.save_best(self.folder, {"model": self.judged.state_dict(), "epoch": place.epoch})
        self._save()
        if self.devices.main:
            write_report(self.out, self.dataset, self.recipe, place.log, measured, self.validation, place.best_epoch)
        if self.trackers:
            self.trackers.log({"validation": entry["validation"], "epoch": place.epoch}, step)

    def _save(self) -> None:
        """Write the checkpoint, then the log, so that the log never knows more than the checkpoint."""
        if self.devices.main:
            if not all(bool(value.isfinite().all()) for value in self.model.parameters()):
                raise Diverged(
                    f"Weights are no longer finite after step {self._step_number()} of {self.steps}: the checkpoint "
                    f"before it is kept in {self.folder}. Lower train.learning_rate, into another --out"
                )
            state = {
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict() if self.ema else None,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "place": self.place.__dict__,
                **checkpoints.identity(self.dataset, self.recipe),
            }
            checkpoints.save(self.folder, self._step_number(), state, self.recipe.train.keep)
            self._write_log()
        self.devices.wait()
        self._saved_at = time.monotonic()

    def _write_log(self) -> None:
        write_text(self.out / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.place.log))

    def _resume(self) -> None:
        saved = checkpoints.load_last(self.folder, self.device)
        if saved is None:
            return
        checkpoints.check_agrees(self.out, "begun", saved, self.dataset, self.recipe)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.place = Place(**saved["place"])
        if self.devices.main:
            self._write_log()  # a kill between the checkpoint and the log left the last entry out
        self._seen_before = self._seen()

    def _maybe_stop(self, stopped: bool) -> None:
        if stopped:
            self._save()
            raise Stopped(
                f"a checkpoint of step {self._step_number()} of {self.steps} is in {self.folder}",
                "run the same command again",
                exit_code=0,
            )
        late = time.monotonic() - self._saved_at > 60 * self.recipe.train.checkpoint_minutes
        if self.devices.total([float(late)])[0]:
            self._save()

    def _report(self) -> None:
        now, place = time.monotonic(), self.place
        elapsed = max(now - self._began, 1e-9)
        loss = place.loss_sum / max(place.pictures, 1)
        note = (
            f"epoch {place.epoch + 1}/{self.recipe.train.epochs}  loss {loss:.4f}  "
            f"waiting {self._waited / elapsed:.0%}  {_memory_gb(self.device):.1f} GB"
        )
        self.progress("train", self._seen(), self.recipe.train.epochs * len(self.train_posts), unit="images", note=note)
        if self.trackers and now - self._tracked_at > _TRACKED_EVERY_S:
            speed = (self._seen() - self._seen_before) / elapsed
            numbers = {"loss": loss, "images_per_second": speed, "waiting": self._waited / elapsed}
            self.trackers.log({"train": numbers}, self._step_number())
            self._tracked_at = now

    def _seen(self) -> int:
        within = min(self.place.batch * self.recipe.train.batch, len(self.train_posts))
        return self.place.epoch * len(self.train_posts) + within

    def _step_number(self) -> int:
        return self.place.epoch * self.steps_an_epoch + self.place.batch

    def _begun(self) -> TagModel:
        """The network with the weights that it begins with; the head of an earlier run is kept."""
        recipe, vocabulary = self.recipe.model, self.dataset.vocabulary
        model = build(recipe, len(vocabulary))
        model.start_head_at(_frequencies(self.train_posts, len(vocabulary)))
        if recipe.init_from is not None:
            begin_from(model, Path(recipe.init_from), vocabulary)
        return model

    def _side(self, epoch: int) -> int:
        """The side of the training pictures in this epoch."""
        done = epoch / self.recipe.train.epochs
        return next((side for until, side in self.recipe.train.sizes if done < until), self.recipe.model.size)

    def _check_sides(self) -> None:
        """Before hours are spent: does the network take every side that the recipe asks for?"""
        self.model.eval()
        for side in sorted({side for _, side in self.recipe.train.sizes}):
            try:
                with torch.inference_mode():
                    self.model(torch.zeros(1, 3, side, side, device=self.device))
            except (AssertionError, RuntimeError) as error:
                raise RecipeError(
                    f"train.sizes: {self.recipe.model.backbone} does not take {side} pixels ({error}). Choose sides "
                    "that it divides, or another backbone."
                ) from error

    def _find_micro_batch(self) -> None:
        wanted, recipe = self.recipe.train.micro_batch, self.recipe
        start, stop = self.devices.part(recipe.train.batch)
        if self.place.micro_batch or wanted is None:
            return
        if isinstance(wanted, int):
            self.place.micro_batch = wanted + wanted % 2 if recipe.augment.mixup else wanted
            return
        kept = {name: value.clone() for name, value in self.model.named_buffers()}
        side = max([recipe.model.size, *(side for _, side in recipe.train.sizes)])

        def attempt(pictures: int) -> None:
            self.model.train()
            with self._autocast():
                logits, _ = self.model(torch.zeros(pictures, 3, side, side, device=self.device))
            lost = per_picture(logits.float(), torch.zeros_like(logits).float(), recipe.loss).sum()
            lost.backward()  # type: ignore[no-untyped-call]
            self.optimizer.zero_grad(set_to_none=True)

        found = find_micro_batch(attempt, max(stop - start, 2))
        for name, value in self.model.named_buffers():
            value.copy_(kept[name])
        self.place.micro_batch = min(self.devices.gather(found))

    def _placed(self, model: TagModel) -> TagModel:
        layout = torch.channels_last if self.recipe.train.channels_last else torch.contiguous_format
        return model.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def _autocast(self) -> torch.autocast:
        kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
        return torch.autocast(
            self.device.type, dtype=kinds.get(self.precision, torch.bfloat16), enabled=self.precision in kinds
        )

    def _workers(self) -> int:
        """On a CPU the model wants the cores: one loader is enough, since packed copies decode fast."""
        if self.recipe.train.workers is not None:
            return self.recipe.train.workers
        return max(1, (os.cpu_count() or 1) // self.devices.world) if self.device.type == "cuda" else 1


def _precision(wanted: str, device: torch.device) -> str:
    if wanted == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return wanted


def _frequencies(posts: Posts, tags: int) -> Tensor:
    counts = np.bincount(posts.indices, minlength=tags).astype(np.float32)
    return torch.from_numpy(counts / max(len(posts), 1))


def _memory_gb(device: torch.device) -> float:
    """The most that was held so far: by the device, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
