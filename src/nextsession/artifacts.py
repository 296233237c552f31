"""A saved model: a directory of plain arrays, ids and a manifest; never code, never pickle.

```
model/
├── manifest.json        what it is: format, model, settings, versions, data, hashes of the files
├── arrays.safetensors   every number
└── vocabulary.arrow     item ids in the order of their codes
```

Written beside its place and renamed, so a reader sees a whole model or none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError
from nextsession.files import manifest_of, sha256, verify, whole_directory
from nextsession.mapping import mapped

FORMAT = 1
_DTYPES = {
    "BOOL": np.bool_, "I8": np.int8, "U8": np.uint8, "I16": np.int16, "U16": np.uint16, "I32": np.int32,
    "U32": np.uint32, "I64": np.int64, "U64": np.uint64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


def write_model(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], items: Vocabulary) -> None:
    """Write a model directory; one already there is replaced at the last moment."""
    if path.exists() and not (path / "manifest.json").exists():
        raise ArtifactError(f"{path} exists and is not a saved model; choose another place or remove it.")
    with whole_directory(path) as scratch:
        save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, scratch / "arrays.safetensors")
        items.save(scratch / "vocabulary.arrow")
        files = {name: sha256(scratch / name) for name in ("arrays.safetensors", "vocabulary.arrow")}
        text = json.dumps({"format": FORMAT, **manifest, "files": files}, indent=2, sort_keys=True)
        (scratch / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a directory we wrote.

    Raises:
        ArtifactError: There is none, it is damaged, or a newer version wrote it.
    """
    return manifest_of(path, "saved model", FORMAT)


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]], Vocabulary]:
    """Read and verify a model directory: manifest, arrays, vocabulary."""
    manifest = read_manifest(path)
    if "columns" in manifest and "model" not in manifest:
        raise ArtifactError(f"{path} is a prepared log, not a saved model; `nextsession fit` makes one of it.")
    if not isinstance(manifest.get("files"), dict):
        raise ArtifactError(f"{path / 'manifest.json'} is damaged: it names no files.")
    verify(path, {name: manifest["files"].get(name, "") for name in ("arrays.safetensors", "vocabulary.arrow")})
    return manifest, arrays_of(path / "arrays.safetensors"), Vocabulary.load(path / "vocabulary.arrow")


def arrays_of(file: Path) -> dict[str, NDArray[Any]]:
    """Map the arrays of a file that `save_file` wrote: processes share them until one changes its own.

    So a large model is there at once, and takes its memory once for all workers of a server.
    """
    with file.open("rb") as handle:
        begin = 8 + int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(begin - 8))
    content = mapped(file)
    found = {}
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        start, stop = facts["data_offsets"]
        array = content[begin + start : begin + stop].view(_DTYPES[facts["dtype"]]).reshape(facts["shape"])
        found[name] = array if array.flags.aligned else array.copy()
    return found
