"""Every layout of a tagger: told by its files, with its own preprocessing, tags, thresholds; and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layout_world import LAYOUTS, SIDE, TAGS, weigh, write_network
from PIL import Image

from efuda.errors import ArtifactError, MismatchError
from efuda.preprocess import Preprocess
from efuda.tagging import Tagged, Tagger, tag
from efuda.tagging.layouts import FAMILIES, detect, taglists
from efuda.tagging.layouts.stages import read_stages
from efuda.vocabulary import Category, Vocabulary

COLOURS = np.array([200, 100, 50], np.float64)
R, G, C, A, M, K = (
    Category.RATING,
    Category.GENERAL,
    Category.COPYRIGHT,
    Category.ARTIST,
    Category.META,
    Category.CHARACTER,
)
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

# layout → [(tag, category, threshold)], in output order
EXPECTED = {
    "wd": [
        *((name, R, 0.5) for name in ("general", "sensitive", "questionable", "explicit")),
        ("1girl", G, 0.35),
        ("hatsune_miku", K, 0.85),
    ],
    "animetimm": [
        ("general", R, 0.4),  # neither of its own nor of its category
        ("1girl", G, 0.61),
        ("long_hair", G, 0.33),
        ("hatsune_miku", K, 0.42),
        ("kagamine_rin", K, 0.44),
        ("explicit", R, 0.7),
    ],
    "cl_tagger": [
        ("general", R, 0.55),
        ("1girl", G, 0.55),
        ("hatsune_miku", K, 0.6),
        ("vocaloid", C, 0.6),
        ("best_quality", M, 0.55),
        ("wlop", A, 0.6),
    ],
    "cl_tagger_v2": [
        ("general", R, 0.55),
        ("1girl", G, 0.55),
        ("hatsune_miku", K, 0.55),
        ("vocaloid", C, 0.55),
        ("best_quality", M, 0.55),
        ("wlop", A, 0.55),
    ],
    "camie": [
        ("general", R, 0.492),
        ("1girl", G, 0.492),
        ("year_2024", M, 0.492),
        ("vocaloid", C, 0.492),
        ("wlop", A, 0.492),
        ("highres", M, 0.492),
    ],
    "joytag": [(name, G, 0.4) for name in ("1girl", "solo", "long_hair", ":3", "o_o", "hat")],
    "deepdanbooru": [
        ("1girl", G, 0.5),
        ("hat", G, 0.5),
        ("hatsune_miku", K, 0.5),
        ("general", R, 0.5),
        ("explicit", R, 0.5),
        ("system_tag", M, 0.5),
    ],
    "ml-danbooru": [(name, G, 0.7) for name in ("1girl", "hat", "o_o", "a", "b", "c")],
}
# layout → the mean of each channel of a picture of COLOURS, as its project's own code would feed it
MEANS = {
    "wd": COLOURS[::-1] / 255,  # the network's weights are divided by 255
    "animetimm": (COLOURS / 255 - (0.48, 0.46, 0.4)) / (0.27, 0.26, 0.28),
    "cl_tagger": COLOURS[::-1] / 127.5 - 1,
    "cl_tagger_v2": COLOURS / 127.5 - 1,
    "camie": (COLOURS / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225),
    "joytag": (COLOURS / 255 - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711),
    "deepdanbooru": COLOURS / 255,
    "ml-danbooru": COLOURS / 255,
}


def place(family: str, root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    LAYOUTS[family](root)
    return root


def plain(side: int = 50) -> Image.Image:
    return Image.new("RGB", (side, side), tuple(int(level) for level in COLOURS))


@pytest.mark.parametrize("family", LAYOUTS)
def test_tags_thresholds_and_scores_are_those_of_the_family(family: str, tmp_path: Path) -> None:
    tagger = Tagger.open(place(family, tmp_path / family), threads=1)
    assert (tagger.layout, tagger.name, tagger.calibrated) == (family, family, family == "animetimm")
    assert tagger.batch == (1 if family == "deepdanbooru" else None)
    found = [(tag.name, tag.category) for tag in tagger.vocabulary]
    assert found == [(name, category) for name, category, _ in EXPECTED[family]]
    assert tagger.thresholds.dtype == np.float32
    assert tagger.thresholds.tolist() == pytest.approx([threshold for *_, threshold in EXPECTED[family]])

    weights, bias = weigh()
    expected = 1 / (1 + np.exp(-(MEANS[family] @ weights + bias)))
    batch = np.stack([tagger.preprocess.array(plain())] * 3)
    scores = tagger.scores(batch)
    assert scores.shape == (3, TAGS) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.tile(expected, (3, 1)), atol=2e-5)


def test_every_family_is_built_here() -> None:
    assert {family.name for family in FAMILIES} == set(LAYOUTS)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("wd", Preprocess(size=SIDE)),
        ("cl_tagger", Preprocess(size=SIDE, layout="nchw", **HALF)),
        ("cl_tagger_v2", Preprocess(size=SIDE, channels="rgb", layout="nchw", **HALF)),
        ("deepdanbooru", Preprocess(size=SIDE, fit="area", channels="rgb", std=(1.0, 1.0, 1.0))),
    ],
)
def test_preprocessing_is_data_at_the_side_that_the_network_takes(
    family: str, expected: Preprocess, tmp_path: Path
) -> None:
    assert Tagger.open(place(family, tmp_path / "model"), threads=1).preprocess == expected


def test_a_threshold_that_is_just_reached_is_reached(tmp_path: Path) -> None:
    tagger = Tagger.open(place("animetimm", tmp_path / "model"), threads=1)
    names = [name for name, _ in tagger.present(tagger.thresholds)]
    assert set(names) == {"1girl", "long_hair", "hatsune_miku", "kagamine_rin"}


def test_several_threads_may_ask_at_once(tmp_path: Path) -> None:
    tagger = Tagger.open(place("camie", tmp_path / "model"), threads=1)
    batches = [np.full((2, 3, SIDE, SIDE), number / 50, np.float32) for number in range(40)]
    alone = [tagger.scores(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(alone, pool.map(tagger.scores, batches), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    root = place("joytag", tmp_path / "model")
    free = Tagger.open(root, threads=1)
    batch = np.random.default_rng(0).random((7, 3, SIDE, SIDE), np.float32)
    expected = free.scores(batch)
    write_network(root / "model.onnx", outputs=["tags"], batch=4)
    fixed = Tagger.open(root, threads=1)
    assert fixed.batch == 4
    np.testing.assert_allclose(fixed.scores(batch), expected, atol=1e-6)


def test_identity_is_of_all_the_weights(tmp_path: Path) -> None:
    root = place("cl_tagger_v2", tmp_path / "model")
    one = Tagger.open(root, threads=1).identity
    data = root / "model.onnx.data"
    changed = bytearray(data.read_bytes())
    changed[0] ^= 1
    data.write_bytes(changed)
    assert Tagger.open(root, threads=1).identity != one
    single = place("joytag", tmp_path / "joytag")
    digest = hashlib.sha256((single / "model.onnx").read_bytes()).hexdigest()
    assert Tagger.open(single, threads=1).identity == f"joytag@{digest[:12]}"


def test_a_file_of_weights_by_its_own_name(tmp_path: Path) -> None:
    root = place("ml-danbooru", tmp_path / "model")
    write_network(root / "ml_caformer_m36_dec-5-97527.onnx", outputs=["output"], side="side")
    with pytest.raises(ArtifactError, match=r"several models: TResnet-D.*, ml_caformer.*\. Name one of them, as "):
        Tagger.open(root)
    caformer = Tagger.open(str(root / "ml_caformer_m36_dec-5-97527.onnx"), threads=1)
    assert (caformer.preprocess.size, caformer.layout) == (448, "ml-danbooru")
    assert Tagger.open(root / "TResnet-D-FLq_ema_6-30000.onnx", threads=1).preprocess.size == SIDE


# What is refused, in one sentence


def test_a_tag_list_of_another_model(tmp_path: Path) -> None:
    for family in LAYOUTS:
        root = place(family, tmp_path / family)
        weights = detect(root).weights
        last = family in ("wd", "deepdanbooru")
        outputs = ["prediction"] if family == "animetimm" else ["output"]
        write_network(weights, last=last, outputs=outputs, tags=TAGS + 1)
        with pytest.raises(MismatchError, match=r"names 6 tags, the model has 7 outputs\. They belong to different"):
            Tagger.open(root, threads=1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "it is a Git LFS pointer"),
        (b"\x08\x08\x12\x07pytorch", "cannot be loaded"),
    ],
)
def test_weights_that_are_none(content: bytes, why: str, tmp_path: Path) -> None:
    root = place("joytag", tmp_path / "model")
    (root / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=why) as raised:
        Tagger.open(root)
    assert str(root / "model.onnx") in str(raised.value) and "\n" not in str(raised.value)


def test_external_data_that_is_absent(tmp_path: Path) -> None:
    root = place("cl_tagger_v2", tmp_path / "model")
    (root / "model.onnx.data").unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be loaded"):
        Tagger.open(root)


def test_directories_of_no_family_or_of_two(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        Tagger.open(tmp_path / "absent")
    write_network(tmp_path / "unknown" / "model.onnx")
    (tmp_path / "unknown" / "labels.npz").touch()
    with pytest.raises(ArtifactError, match=r"found: labels\.npz, model\.onnx.*WD by selected_tags\.csv; animetimm by"):
        Tagger.open(tmp_path / "unknown")
    both = place("wd", tmp_path / "both")
    place("joytag", both)
    with pytest.raises(ArtifactError, match=r"could be several models: it holds selected_tags\.csv \(WD\), top_tags"):
        Tagger.open(both)


def test_an_input_of_another_shape(tmp_path: Path) -> None:
    root = place("joytag", tmp_path / "model")
    write_network(root / "model.onnx", last=True)
    with pytest.raises(ArtifactError, match=r"not \[n, 3, side, side\], so this is no tagger of the JoyTag family"):
        Tagger.open(root)
    root = place("animetimm", tmp_path / "fixed")
    write_network(root / "model.onnx", side=64)
    with pytest.raises(MismatchError, match=r"takes 64 pixels a side, preprocess\.json makes 32"):
        Tagger.open(root)


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ([{"type": "blur"}], "the stage 'blur' is not known"),
        ([{"type": "resize", "size": 32}], "they do not end in a square of one size"),
        ([], "they do not end in a square of one size"),
        ([{"type": "center_crop", "size": "large"}], "ValidationError|make no sense"),
        ("none", "lists no stages"),
        ([{"type": "normalize", "mean": [1]}], "KeyError"),
    ],
)
def test_stages_that_make_no_sense(stages: object, why: str, tmp_path: Path) -> None:
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps({"test": stages}))
    with pytest.raises(ArtifactError, match=why):
        read_stages(path)


@pytest.mark.parametrize(
    ("read", "text", "why"),
    [
        (taglists.read_tag_mapping, '{"0": {"tag": "a", "category": "Sauce"}}', "'Sauce' is not a category; known are"),
        (taglists.read_tag_mapping, '{"1": {"tag": "a", "category": "General"}}', "no tag for output 0"),
        (taglists.read_tag_mapping, '{"x": {"tag": "a", "category": "General"}}', "'x' is not the number of an output"),
        (taglists.read_tag_mapping, "[]", "a table is expected"),
        (taglists.read_tag_mapping, "{", "cannot be read"),
        (taglists.read_top_tags, "\n\n", "it names no tags"),
        (taglists.read_class_json, '["a", 3]', "the tag of output 1 has no name"),
        (taglists.read_vocabulary_json, '{"idx_to_tag": ["a"], "tag_to_category": {}}', "None is not a category"),
    ],
)
def test_tag_lists_that_make_no_sense(read: Callable[[Path], Vocabulary], text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "tags"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=why):
        read(path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["General", "0", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["0", "1", "tag", "category", "idx_to_tag", "tag_to_category", "dataset_info", "tag_mapping", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
READERS = [
    taglists.read_tag_mapping,
    taglists.read_vocabulary_json,
    taglists.read_camie,
    taglists.read_top_tags,
    taglists.read_class_json,
    taglists.read_selected_tags,
    lambda path: taglists.read_selected_tags(path, path),
    lambda path: taglists.read_deepdanbooru(path, path, path),
    lambda path: taglists.read_deepdanbooru(path, None, path),
    taglists.best_thresholds,
    taglists.category_thresholds,
    read_stages,
]
HEADER = st.sampled_from(["", "name,category,best_threshold\n", "category,name,alpha,threshold\n"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60)
    | st.tuples(HEADER, st.text(alphabet='a1,."\n\r\x00é 9', max_size=40)).map(lambda both: "".join(both).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_tag_list_or_one_named_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tags"
    path.write_bytes(content)
    for read in READERS:
        try:
            found = read(path)
        except ArtifactError as error:
            assert str(path) in str(error)
        else:
            assert found is not None


# PyTorch, where there is no ONNX file


def timm_config(root: Path, tags: int, **more: object) -> object:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=tags).eval()
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, root / "model.safetensors")
    said = {
        "architecture": "test_resnet",
        "num_classes": tags,
        "pretrained_cfg": {"input_size": [3, SIDE, SIDE]},
        **more,
    }
    (root / "config.json").write_text(json.dumps(said))
    return module


def test_wd_by_timm_takes_bgr_from_minus_one_to_one(tmp_path: Path) -> None:
    import torch

    root = place("wd", tmp_path / "model")
    (root / "model.onnx").unlink()
    module = timm_config(root, TAGS)
    tagger = Tagger.open(root, threads=1)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    rgb = torch.from_numpy(np.asarray(noise).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)
    with torch.inference_mode():
        expected = module(rgb[[2, 1, 0]][None]).sigmoid().numpy()  # type: ignore[operator]
    np.testing.assert_allclose(tagger.scores(tagger.preprocess.array(noise)[None]), expected, atol=1e-5)
    assert tagger.thresholds.tolist()[4:] == pytest.approx([0.35, 0.85])
    digest = hashlib.sha256((root / "model.safetensors").read_bytes()).hexdigest()
    assert tagger.identity == f"model@{digest[:12]}"


def test_animetimm_by_timm(tmp_path: Path) -> None:
    import torch

    root = place("animetimm", tmp_path / "model")
    (root / "model.onnx").unlink()
    module = timm_config(root, TAGS)
    tagger = Tagger.open(root, threads=1)
    array = tagger.preprocess.array(plain())
    with torch.inference_mode():
        expected = module(torch.from_numpy(array)[None]).sigmoid().numpy()  # type: ignore[operator]
    np.testing.assert_allclose(tagger.scores(array[None]), expected, atol=1e-6)


def joytag_state(width: int = 16, blocks: int = 2, mlp: int = 32) -> dict[str, object]:
    """The parameters by the names that JoyTag's file has, with a stem of convolution, norm and GELU."""
    import torch

    torch.manual_seed(0)
    shapes = {
        "patch_embeddings.conv.0": (8, 3, 3, 3),
        "patch_embeddings.conv.3": (width, 8, 8, 8),
        "norm": (width,),
        "head": (TAGS, width),
        "patch_embeddings.conv.1.norm": (8,),
    }
    for number in range(blocks):
        block = f"blocks.{number}"
        shapes |= {f"{block}.norm1": (width,), f"{block}.norm2": (width,)}
        shapes |= {f"{block}.qkv_proj": (3 * width, width), f"{block}.out_proj": (width, width)}
        shapes |= {f"{block}.mlp.linear1": (mlp, width), f"{block}.mlp.linear2": (width, mlp)}
    state = {f"{name}.weight": torch.randn(shape) / 4 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) / 4 for name, shape in shapes.items()}
    for number in range(blocks):
        state |= {f"blocks.{number}.skip_init{which}.skip": torch.rand(width) for which in (1, 2)}
    return dict(state)


def test_joytag_s_own_network(tmp_path: Path) -> None:
    """Against PyTorch's own layers, put together here from the description of the network."""
    import torch
    from safetensors.torch import save_file

    root = place("joytag", tmp_path / "model")
    (root / "model.onnx").unlink()
    width, heads, mlp, state = 16, 2, 32, joytag_state()
    save_file(state, root / "model.safetensors")
    said = {"class": "ViT", "n_tags": TAGS, "image_size": SIDE, "num_blocks": 2, "patch_size": 16, "d_model": width}
    said |= {"mlp_dim": mlp, "num_heads": heads, "use_sine": True, "cnn_stem": "conv:c=8;ln;gelu;conv:c=16,k=8,s=8,p=0"}
    (root / "config.json").write_text(json.dumps(said))
    tagger = Tagger.open(root, threads=1)
    pictures = torch.rand(3, 3, SIDE, SIDE)

    def get(name: str) -> torch.Tensor:
        return state[name]  # type: ignore[return-value]

    maps = torch.conv2d(pictures, get("patch_embeddings.conv.0.weight"), get("patch_embeddings.conv.0.bias"), 2, 1)
    mean, spread = maps.mean(1, keepdim=True), maps.var(1, unbiased=False, keepdim=True)
    maps = (maps - mean) / (spread + 1e-5).sqrt()
    scale, shift = (get(f"patch_embeddings.conv.1.norm.{part}")[:, None, None] for part in ("weight", "bias"))
    maps = torch.nn.functional.gelu(maps * scale + shift)
    maps = torch.conv2d(maps, get("patch_embeddings.conv.3.weight"), get("patch_embeddings.conv.3.bias"), 8)
    tokens = []
    for y in range(2):
        for x in range(2):
            waves = [10_000 ** -(k / 3) for k in range(4)]
            place_ = [f(v * w) for v, f in ((x, np.sin), (x, np.cos), (y, np.sin), (y, np.cos)) for w in waves]
            tokens.append(maps[:, :, y, x] + torch.tensor(place_, dtype=torch.float32))
    values = torch.stack(tokens, 1)
    for number in range(2):
        layer = torch.nn.TransformerEncoderLayer(
            width, heads, mlp, 0.0, "gelu", batch_first=True, norm_first=True
        ).eval()
        block = f"blocks.{number}"
        attention = layer.self_attn
        attention.in_proj_weight.data, attention.in_proj_bias.data = (
            get(f"{block}.qkv_proj.weight"),
            get(f"{block}.qkv_proj.bias"),
        )
        for ours, theirs in (
            (attention.out_proj, "out_proj"),
            (layer.linear1, "mlp.linear1"),
            (layer.linear2, "mlp.linear2"),
            (layer.norm1, "norm1"),
            (layer.norm2, "norm2"),
        ):
            ours.weight.data, ours.bias.data = get(f"{block}.{theirs}.weight"), get(f"{block}.{theirs}.bias")
        with torch.no_grad():
            normed = layer.norm1(values)
            values = values + attention(normed, normed, normed)[0] * get(f"{block}.skip_init1.skip")
            mixed = layer.linear2(torch.nn.functional.gelu(layer.linear1(layer.norm2(values))))
            values = values + mixed * get(f"{block}.skip_init2.skip")
    values = torch.nn.functional.layer_norm(values, [width], get("norm.weight"), get("norm.bias")).mean(1)
    expected = torch.sigmoid(values @ get("head.weight").T + get("head.bias")).numpy()
    np.testing.assert_allclose(tagger.scores(pictures.numpy()), expected, atol=1e-5)


def test_weights_of_another_network_or_damaged_ones(tmp_path: Path) -> None:
    root = place("wd", tmp_path / "model")
    (root / "model.onnx").unlink()
    timm_config(root, TAGS)
    whole = (root / "model.safetensors").read_bytes()
    (root / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be loaded"):
        Tagger.open(root)
    (root / "model.safetensors").write_bytes(whole)
    said = json.loads((root / "config.json").read_text())
    for wrong in ({"architecture": "no_such_network"}, {"architecture": "test_vit"}, {"num_classes": 9}):
        (root / "config.json").write_text(json.dumps({**said, **wrong}))
        with pytest.raises(ArtifactError, match="does not hold the network that"):
            Tagger.open(root)
    (root / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        Tagger.open(root)


def test_safetensors_alone_where_only_onnx_is_known(tmp_path: Path) -> None:
    root = place("camie", tmp_path / "model")
    shutil.move(root / "camie-tagger-v2.onnx", root / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"only as model\.safetensors.*Put the ONNX file beside it"):
        Tagger.open(root)


@pytest.mark.parametrize("family", ["cl_tagger", "camie", "deepdanbooru"])
def test_tagging_pictures_of_any_shape(family: str, tmp_path: Path) -> None:
    from efuda.images import read_rgb

    tagger = Tagger.open(place(family, tmp_path / "model"), threads=1)
    paths = [tmp_path / f"{width}.png" for width in (30, 47, 90)]
    for path in paths:
        noise = np.random.default_rng(len(path.name)).integers(0, 256, (60, int(path.stem), 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    for path, result in zip(paths, tag(tagger, paths, workers=1), strict=True):
        assert isinstance(result, Tagged)
        alone = tagger.scores(tagger.preprocess.array(read_rgb(path))[None])[0]
        np.testing.assert_allclose(result.dense(TAGS), np.where(alone < 0.01, 0, alone), atol=2e-5)
