"""What do 8-bit integers give and cost? Speed and macro F1 of a model, and the speed of ResNet50 at 448 pixels.

    python benchmarks/int8.py --demo demo                # a trained model, its test split
    python benchmarks/int8.py --resnet                   # random weights, 8,266 outputs: speed alone
    python benchmarks/int8.py --demo demo --narrow       # weights of 7 bits, as for processors without VNNI

`--demo` is the folder that `efuda demo` made. Both models see the same batch in turn; the number is the median of the
rounds. `--threads` is for both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from efuda.artifacts import Dataset
from efuda.evaluation import quantise
from efuda.tagging import Tagger
from efuda.tagging.int8 import Quantiser, needs_reduced_range, pictures_a_second
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

TAGS, SIDE, BATCH = 8266, 448, 4


def of_the_demo(demo: Path, narrow: bool | None) -> None:
    """Quantise the demo's model and say what it lost."""
    with TemporaryDirectory() as folder:
        dataset = Dataset.open(demo / "dataset")
        made = quantise(demo / "model", dataset, Path(folder) / "int8", reduced_range=narrow)
        print(json.dumps({"model": str(demo / "model"), **made.data()}, indent=2))


def of_resnet(threads: int, narrow: bool | None) -> None:
    """The speed of a WD directory with a ResNet50 of random weights, in float32 and int8."""
    with TemporaryDirectory() as folder:
        root, out = Path(folder) / "float32", Path(folder) / "int8"
        write_resnet(root)
        out.mkdir()
        (out / "selected_tags.csv").write_bytes((root / "selected_tags.csv").read_bytes())
        quantiser = Quantiser(root / "model.onnx", drawn(4), reduced_range=narrow)
        quantiser.write(out / "model.onnx")
        taggers = [Tagger.open(one, threads=threads) for one in (root, out)]
        speeds = pictures_a_second(taggers, next(drawn(1)), rounds=5)
        sizes = [(one / "model.onnx").stat().st_size / 1e6 for one in (root, out)]
        print(f"ResNet50, {SIDE} px, {TAGS:,} outputs, {threads} threads, reduced range: {quantiser.reduced_range}")
        print(f"float32 {speeds[0]:.2f}, int8 {speeds[1]:.2f} pictures a second: {speeds[1] / speeds[0]:.2f} times")
        print(f"float32 {sizes[0]:.0f} MB, int8 {sizes[1]:.0f} MB")


def drawn(batches: int) -> Iterator[NDArray[np.float32]]:
    """Noise, as the model is fed."""
    rng = np.random.default_rng(0)
    for _ in range(batches):
        yield rng.integers(0, 256, (BATCH, SIDE, SIDE, 3)).astype(np.float32)


def write_resnet(root: Path) -> None:
    """A WD directory as small as its files can be."""
    import timm

    class Wd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model("resnet50", num_classes=TAGS)

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.network(pictures.permute(0, 3, 1, 2) / 127.5 - 1).sigmoid()
            return scores

    root.mkdir()
    ratings = [Tag(name, Category.RATING) for name in RATINGS]
    names = [Tag(f"tag_{number}") for number in range(TAGS - len(ratings))]
    Vocabulary([*ratings, *names]).write_csv(root / "selected_tags.csv")
    torch.manual_seed(0)
    example = torch.zeros(2, SIDE, SIDE, 3)
    shapes = {"pictures": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        Wd().eval(),
        (example,),
        root / "model.onnx",
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=shapes,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--resnet", action="store_true")
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    narrow = True if asked.narrow else None
    print(f"This processor needs the reduced range: {needs_reduced_range()}")
    if asked.demo:
        of_the_demo(asked.demo, narrow)
    if asked.resnet:
        of_resnet(asked.threads, narrow)


if __name__ == "__main__":
    main()
