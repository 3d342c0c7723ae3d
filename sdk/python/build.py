"""Makes a folder from which a Python agent can call AION and serve tasks: aion_sdk, and aion_runtime with grpcio, protobuf and the stubs.

    python3 sdk/python/build.py FOLDER

An agent sees it through the capability fs:read:FOLDER/** and PYTHONPATH=FOLDER. The stubs are generated here, so that they fit the
protobuf beside them. Packages come by name from pip's index. A folder that is complete is left alone.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
PACKAGES = ["grpcio", "protobuf"]
OURS = ["aion_runtime", "aion_sdk"]


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    out = Path(sys.argv[1]).resolve()
    stamp = out / ".complete"
    if stamp.is_file() and stamp.read_text() == key():
        return 0
    fresh = out.with_name(out.name + f".new{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tools = fresh / ".tools"
    try:
        pip(tools, ["grpcio-tools", *PACKAGES])
        pip(fresh, PACKAGES)
        protoc(tools, fresh)
        for package in OURS:
            shutil.copytree(HERE / package, fresh / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.rmtree(tools)
        (fresh / ".complete").write_text(key())
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return 0


def key() -> str:
    """What the folder is made of: this Python, these sources."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    ours = [path for package in OURS for path in HERE.glob(f"{package}/*.py")]
    for path in sorted([*ours, HERE / "build.py", PROTO / "aion/v1/runtime.proto"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def pip(target: Path, packages: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-script-location", "--disable-pip-version-check", "--root-user-action=ignore"]
    subprocess.run([*command, "--target", str(target), *packages], check=True)


def protoc(tools: Path, out: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}", f"--python_out={out}"]
    command += [f"--grpc_python_out={out}", "aion/v1/runtime.proto"]
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
