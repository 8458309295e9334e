"""The loop: steps, epochs, validation, checkpoints; stopped anywhere and started again, it ends with the same weights.

Nothing depends on what ran before a step but the weights, the optimiser and the counters, and those are in every
checkpoint: the order of the pictures follows from (seed, epoch), what is random in a step from (seed, step).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from efuda.artifacts import Dataset, Posts
from efuda.errors import Diverged, MismatchError, Stopped
from efuda.files import replacing, write_text
from efuda.metrics import ScoreHistogram
from efuda.preprocess import Preprocess
from efuda.progress import Progress
from efuda.recipes import Recipe
from efuda.training.augment import augment, normalise
from efuda.training.loading import Batch, batches, shuffled
from efuda.training.model import TagModel, build
from efuda.training.optim import bce, optimizer, rate

__all__ = ["Loop", "changes"]

REFERENCE_THRESHOLD: Final = 0.5


@dataclass
class Place:
    """Where the run is: everything beside weights and optimiser that the next step depends on."""

    epoch: int = 0
    batch: int = 0  # within the epoch
    loss_sum: float = 0.0  # of this epoch, over `pictures`
    pictures: int = 0
    best: float = -math.inf
    log: list[dict[str, Any]] = field(default_factory=list)


class Loop:
    """One run on one device.

    Args:
        stop: asked after every step; True means: keep a checkpoint and leave with `Stopped`.
    """

    def __init__(
        self, dataset: Dataset, out: Path, recipe: Recipe, *, progress: Progress, stop: Callable[[], bool]
    ) -> None:
        self.dataset, self.out, self.recipe, self.progress, self.stop = dataset, out, recipe, progress, stop
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = _precision(recipe.train.precision, self.device)
        self.preprocess = Preprocess(size=recipe.model.size)
        self.train_posts, self.validation = dataset.posts("train"), dataset.posts("validation")
        self.steps_an_epoch = -(-len(self.train_posts) // recipe.train.batch)
        self.steps = self.steps_an_epoch * recipe.train.epochs
        self.place = Place()
        torch.manual_seed(recipe.train.seed)
        self.model = self._placed(build(recipe.model, len(dataset.vocabulary)))
        self.model.start_head_at(_frequencies(self.train_posts, len(dataset.vocabulary)))
        decay = recipe.train.ema
        self.ema = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None  # type: ignore[no-untyped-call]
        )
        self.optimizer = optimizer(self.model, recipe.train, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._saved_at = self._began = time.monotonic()
        self._seen_before = self._waited = 0.0

    @property
    def judged(self) -> TagModel:
        """The weights that are measured and exported: the averaged ones where there are any."""
        return self.ema.module if self.ema else self.model  # type: ignore[return-value]

    def run(self) -> list[dict[str, Any]]:
        """Train to the end, from the last checkpoint if there is one; returns one entry an epoch."""
        self._resume()
        while self.place.epoch < self.recipe.train.epochs:
            self._epoch()
        return self.place.log

    def measure(self, posts: Posts, name: str) -> dict[str, float]:
        """Loss, and precision, recall, F1 at the reference's threshold of 0.5, and mAP, of the judged weights."""
        model, tags = self.judged, len(self.dataset.vocabulary)
        histogram, loss, seen = ScoreHistogram(tags), 0.0, 0
        was_training = model.training
        model.eval()
        batch_size = 4 * self.recipe.train.batch
        loader = batches(posts, np.arange(len(posts)), self.preprocess, batch=batch_size, workers=self._workers())
        with torch.inference_mode():
            for batch in loader:
                with self._autocast():
                    logits, _ = model(self._normalised(self._pictures(batch)))
                labels = batch.labels(tags, self.device)
                loss += float(bce(logits.float(), labels, self.recipe.loss)) * len(labels)
                seen += len(labels)
                histogram.update(logits.float().sigmoid().cpu().numpy(), labels.bool().cpu().numpy())
                self.progress(name, seen, len(posts), unit="images")
        model.train(was_training)
        counts = histogram.counts(REFERENCE_THRESHOLD)
        micro, macro = counts.micro(), counts.macro()
        return {
            "loss": loss / max(seen, 1),
            "micro_precision": micro.precision,
            "micro_recall": micro.recall,
            "micro_f1": micro.f1,
            "macro_precision": macro.precision,
            "macro_recall": macro.recall,
            "macro_f1": macro.f1,
            "map": histogram.mean_average_precision(),
            "tags": macro.tags,
        }

    def _epoch(self) -> None:
        place, recipe = self.place, self.recipe.train
        order = shuffled(len(self.train_posts), seed=recipe.seed, epoch=place.epoch)
        loader = batches(
            self.train_posts, order, self.preprocess, batch=recipe.batch, workers=self._workers(), first=place.batch
        )
        self.model.train()
        asked = time.monotonic()
        for batch in loader:
            self._waited += time.monotonic() - asked
            if len(batch.pictures):
                self._step(batch)
            place.batch += 1
            self._report()
            self._maybe_stop()
            asked = time.monotonic()
        self._finish_epoch()

    def _step(self, batch: Batch) -> None:
        recipe, place = self.recipe, self.place
        step = place.epoch * self.steps_an_epoch + place.batch
        generator = torch.Generator().manual_seed(recipe.train.seed * 1_000_003 + step)
        torch.manual_seed(recipe.train.seed * 1_000_003 + step)
        pictures = augment(self._pictures(batch), recipe.augment, generator)
        labels = batch.labels(len(self.dataset.vocabulary), self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(step, self.steps, recipe.train) * group["multiple"]
        with self._autocast():
            logits, _ = self.model(self._normalised(pictures))
        loss = bce(logits.float(), labels, recipe.loss)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(
                f"The loss became {value} at step {step + 1} of {self.steps} (epoch {place.epoch + 1}). The last "
                f"checkpoint is kept in {self.out / 'checkpoints'}; lower the rate with --set train.learning_rate="
                f"{recipe.train.learning_rate / 10:g}, into another --out"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update_parameters(self.model)
        place.loss_sum += value * len(batch.pictures)
        place.pictures += len(batch.pictures)

    def _finish_epoch(self) -> None:
        place = self.place
        measured = self.measure(self.validation, "validate")
        step = (place.epoch + 1) * self.steps_an_epoch
        place.log.append(
            {
                "epoch": place.epoch + 1,
                "step": step,
                "learning_rate": rate(step - 1, self.steps, self.recipe.train),
                "train_loss": place.loss_sum / max(place.pictures, 1),
                "validation": measured,
            }
        )
        chosen = measured[self.recipe.train.select] * (-1 if self.recipe.train.select == "loss" else 1)
        is_best = chosen > place.best
        place.best = max(place.best, chosen)
        place.epoch, place.batch, place.loss_sum, place.pictures = place.epoch + 1, 0, 0.0, 0
        if is_best:
            with replacing(self.out / "checkpoints" / "best.pt") as beside:
                torch.save({"model": self.judged.state_dict(), "epoch": place.epoch}, beside)
        self._save()

    def _save(self) -> None:
        """Write `last.pt`, then the log, so that the log never knows more than the checkpoint."""
        with replacing(self.out / "checkpoints" / "last.pt") as beside:
            torch.save(
                {
                    "model": self.model.state_dict(),
                    "ema": self.ema.state_dict() if self.ema else None,
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "place": self.place.__dict__,
                    "dataset": self.dataset.digest,
                    "vocabulary": self.dataset.vocabulary.digest,
                    "recipe": _deciding(self.recipe),
                },
                beside,
            )
        self._write_log()
        self._saved_at = time.monotonic()

    def _write_log(self) -> None:
        write_text(self.out / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.place.log))

    def _resume(self) -> None:
        path = self.out / "checkpoints" / "last.pt"
        if not path.is_file():
            return
        saved = torch.load(path, map_location=self.device, weights_only=True)
        self._check(saved)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.place = Place(**saved["place"])
        self._write_log()  # a kill between the checkpoint and the log left the last entry out
        self._seen_before = self._seen()

    def _check(self, saved: dict[str, Any]) -> None:
        another = "Train into another --out, or give back what changed."
        if saved["vocabulary"] != self.dataset.vocabulary.digest:
            raise MismatchError(f"{self.out} was begun with other tags than {self.dataset.root} has now. {another}")
        if saved["dataset"] != self.dataset.digest:
            raise MismatchError(f"{self.out} was begun with other posts than {self.dataset.root} has now. {another}")
        if changed := changes(saved["recipe"], self.recipe):
            raise MismatchError(f"{self.out} was begun with another recipe: {', '.join(changed)} changed. {another}")

    def _maybe_stop(self) -> None:
        if self.stop():
            self._save()
            done = self.place.epoch * self.steps_an_epoch + self.place.batch
            raise Stopped(
                f"a checkpoint of step {done} of {self.steps} is in {self.out / 'checkpoints'}",
                "run the same command again",
                exit_code=0,
            )
        if time.monotonic() - self._saved_at > 60 * self.recipe.train.checkpoint_minutes:
            self._save()

    def _report(self) -> None:
        elapsed = max(time.monotonic() - self._began, 1e-9)
        place = self.place
        note = (
            f"epoch {place.epoch + 1}/{self.recipe.train.epochs}  loss {place.loss_sum / max(place.pictures, 1):.4f}  "
            f"waiting {self._waited / elapsed:.0%}"
        )
        self.progress("train", self._seen(), self.recipe.train.epochs * len(self.train_posts), unit="images", note=note)

    def _seen(self) -> int:
        within = min(self.place.batch * self.recipe.train.batch, len(self.train_posts))
        return self.place.epoch * len(self.train_posts) + within

    def _pictures(self, batch: Batch) -> Tensor:
        return _to_device(batch.pictures, self.device, self.recipe.train.channels_last)

    def _normalised(self, pictures: Tensor) -> Tensor:
        return normalise(pictures, self.recipe.model.mean, self.recipe.model.std)

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
        return (os.cpu_count() or 1) if self.device.type == "cuda" else 1


def changes(before: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """The keys, as `section.key`, that decide the weights and had another value before."""
    return sorted(
        f"{section}.{key}"
        for section, keys in _deciding(recipe).items()
        for key in keys
        if before.get(section, {}).get(key) != keys[key]
    )


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """What decides the weights; the number of workers and the pace of checkpoints do not."""
    sections = recipe.model_dump(mode="json", include={"model", "augment", "loss", "train"})
    for key in ("workers", "checkpoint_minutes"):
        del sections["train"][key]
    return sections


def _to_device(pictures: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """uint8 [n, side, side, 3] → float32 in 0–1, [n, 3, side, side], on the device."""
    moved = pictures.to(device, non_blocking=True).permute(0, 3, 1, 2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return (moved.float() / 255).contiguous(memory_format=layout)


def _precision(wanted: str, device: torch.device) -> str:
    if wanted == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return wanted


def _frequencies(posts: Posts, tags: int) -> Tensor:
    counts = np.bincount(posts.indices, minlength=tags).astype(np.float32)
    return torch.from_numpy(counts / max(len(posts), 1))
