"""A compiled network beside its model: measured to answer alike, kept in its folder, refused if it is of another.

```
model/
├── manifest.json  …
└── runtime/
    ├── manifest.json    what it reads, how much it differs, the hash of the model, hashes of the files
    ├── query.onnx       from what is read of one history to its query
    ├── table.npy        (V, D + 2) vectors of the items, bias, popularity: mapped, and shared by processes
    └── read.npy         (V, W) what is read of items, where it is not what is ranked
```
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextsession.artifacts import read_manifest
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, ModelError
from nextsession.files import manifest_of, sha256, verify, whole_directory
from nextsession.mapping import mapped_array
from nextsession.reading import Reading
from nextsession.recommender import Recommender
from nextsession.runtime.compiled_network import CompiledNetwork, compiled_network

FOLDER = "runtime"
FORMAT = 1
_GRAPH, _TABLE, _READ = "query.onnx", "table.npy", "read.npy"


def onnxruntime() -> Any:
    """Return ONNX Runtime.

    Raises:
        ModelError: It is not installed.
    """
    try:
        import onnxruntime as library
    except ModuleNotFoundError:
        raise ModelError("A compiled network needs onnxruntime: pip install 'nextsession[runtime]'.") from None
    return library


def save_runtime(
    folder: Path,
    graph: bytes,
    table: NDArray[np.float32],
    read: NDArray[np.float32] | None,
    reading: Reading,
    facts: dict[str, Any],
    *,
    unknown_kind: int,
    **notes: Any,
) -> None:
    """Keep a compiled network in the folder of its model, whole or not at all.

    Args:
        folder: Of the model.
        graph: In ONNX.
        table: As `CompiledNetwork` takes it.
        read: Likewise; None: the vectors of `table`.
        reading: Likewise.
        facts: Those of `facts_of`.
        unknown_kind: As `CompiledNetwork` takes it.
        notes: Whatever else should be written down.
    """
    with whole_directory(folder / FOLDER) as scratch:
        (scratch / _GRAPH).write_bytes(graph)
        np.save(scratch / _TABLE, table)
        if read is not None:
            np.save(scratch / _READ, read)
        files = {path.name: sha256(path) for path in sorted(scratch.iterdir())}
        manifest = {
            "format": FORMAT,
            "model": sha256(folder / "manifest.json"),
            "facts": facts,
            "reading": asdict(reading),
            "unknown_kind": unknown_kind,
            "files": files,
            **notes,
        }
        text = json.dumps(manifest, indent=2, sort_keys=True)
        (scratch / "manifest.json").write_text(text + "\n", encoding="utf-8")


def load_runtime(folder: Path) -> Recommender[Any] | None:
    """Return the compiled network that lies beside a model; None if none does.

    Raises:
        ArtifactError: It is damaged, or of another model.
        ModelError: ONNX Runtime is not installed.
    """
    place = folder / FOLDER
    if not place.is_dir():
        return None
    manifest, model = manifest_of(place, "compiled network", FORMAT), read_manifest(folder)
    if manifest.get("model") != sha256(folder / "manifest.json"):
        raise ArtifactError(f"{place} is of another model; run `nextsession compile {folder}` again.")
    try:
        files, facts, unknown_kind = manifest["files"], manifest["facts"], manifest["unknown_kind"]
        reading = Reading(**{**manifest["reading"], "actions": tuple(manifest["reading"]["actions"])})
        verify(place, files)
        verify(folder, {"vocabulary.arrow": model["files"]["vocabulary.arrow"]})
        trained_until = model["trained_until"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{place} is damaged: its manifest lacks {error}.") from None
    vocabulary = Vocabulary.load(folder / "vocabulary.arrow")
    table = mapped_array(place / _TABLE)
    read = mapped_array(place / _READ) if _READ in files else table[:, :-2]
    if len(table) != len(vocabulary) or len(read) != len(vocabulary):
        raise ArtifactError(f"{place} is damaged: it has not as many items as its model.")
    made = compiled_network(facts, session_of(place / _GRAPH), reading, table, read, unknown_kind=unknown_kind)
    made.vocabulary_, made.trained_until_ = vocabulary, trained_until
    return made


def session_of(graph: Path | bytes) -> Any:
    """Return a session of ONNX Runtime for a graph: one thread, which sleeps while it has nothing to do.

    Raises:
        ArtifactError: It is no graph that can be run here.
    """
    library = onnxruntime()
    options = library.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return library.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of kinds that ONNX Runtime keeps to itself
        raise ArtifactError(f"ONNX Runtime cannot run the graph: {str(error).splitlines()[0]}") from None


__all__ = ["FOLDER", "CompiledNetwork", "load_runtime", "onnxruntime", "save_runtime", "session_of"]
