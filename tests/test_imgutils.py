"""dghs-imgutils loads our model directory and finds the same tags.

imgutils pins numpy below 2, so it has a virtualenv of its own: the interpreter in EFUDA_PEERS_PYTHON, or
`.venv-peers/bin/python` in the repository (`make peers`). It takes models from the hub only, so the directory is laid
out as a hub cache.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import draw
from PIL import Image

from efuda.artifacts import Model
from efuda.tagging import Tagged, Tagger, tag
from efuda.vocabulary import RATINGS

PEERS = Path(os.environ.get("EFUDA_PEERS_PYTHON") or Path(__file__).parents[1] / ".venv-peers" / "bin" / "python")
SHA = "0" * 40
SCRIPT = """
import json, sys
from imgutils.tagging import get_wd14_tags
names = ("rating", "general", "character", "prediction", "embedding")
found = []
for path in sys.argv[1:]:
    everything = get_wd14_tags(path, model_name="SwinV2_v3", general_threshold=-1, character_threshold=-1, fmt=names)
    rating, general, _, prediction, embedding = everything
    usual = get_wd14_tags(path, model_name="SwinV2_v3")[1]
    found.append({"rating": rating, "general": general, "usual": usual, "prediction": prediction.tolist(),
                  "embedding": len(embedding)})
print(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(
    not PEERS.is_file(), reason=f"no interpreter with dghs-imgutils at {PEERS}; set EFUDA_PEERS_PYTHON"
)


def place(file: Path, hub: Path, repository: str, inside: str) -> None:
    """Put one file where huggingface_hub looks for it offline."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    target = folder / "snapshots" / SHA / inside
    target.parent.mkdir(parents=True)
    shutil.copy(file, target)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(SHA)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """The same size and another, wide and tall, JPEG, PNG and WebP, and with an alpha channel.

    No grey one: imgutils pastes a picture of mode L through itself as a mask, which brightens it.
    """
    rng, folder = random.Random(1), tmp_path / "pictures"
    folder.mkdir()
    draw("red", "circle", rng).save(folder / "exact.jpg", quality=92)
    draw("blue", "square", rng, side=200).save(folder / "large.png")
    draw("green", "triangle", rng, side=160).resize((300, 111)).save(folder / "wide.jpg")
    draw("blue", "circle", rng, side=160).resize((57, 131)).save(folder / "tall.webp", lossless=True)
    veiled = draw("red", "square", rng, side=120)
    veiled.putalpha(Image.linear_gradient("L").resize(veiled.size))
    veiled.crop((0, 0, 120, 90)).save(folder / "alpha.png")
    return sorted(folder.iterdir())


def test_same_tags_as_imgutils(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    hub = tmp_path / "home" / "hub"
    peer = "SmilingWolf/wd-swinv2-tagger-v3"
    place(model.root / "model.onnx", hub, "deepghs/wd14_tagger_with_embeddings", f"{peer}/model.onnx")
    place(model.root / "selected_tags.csv", hub, peer, "selected_tags.csv")
    environment = {**os.environ, "HF_HOME": str(hub.parent), "HF_HUB_OFFLINE": "1", "ONNX_MODE": "cpu"}
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [str(PEERS), "-c", SCRIPT, *map(str, pictures)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])

    tagger = Tagger.open(model.root)
    for result, found in zip(tag(tagger, pictures), theirs, strict=True):
        assert isinstance(result, Tagged)
        ours = dict(zip(tagger.vocabulary.names, result.dense(len(tagger.vocabulary)).tolist(), strict=True))
        assert found["general"] == pytest.approx(ours, abs=1e-3), result.path.name
        assert found["rating"] == dict.fromkeys(RATINGS, 0.0)
        assert np.allclose(found["prediction"][4:], result.dense(len(tagger.vocabulary)), atol=1e-3)
        assert found["embedding"] > 0
        at_theirs = dict(result.present(tagger.with_threshold(0.35)))
        assert found["usual"] == pytest.approx(at_theirs, abs=1e-3), result.path.name
