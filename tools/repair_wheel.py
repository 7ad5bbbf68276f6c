"""Bundle libgomp into a wheel for Linux, with its license: `repair_wheel.py WHEEL FOLDER`.

auditwheel copies the library and names the platforms on which the wheel works; this adds what its
license asks for. The same wheel gives the same bytes if SOURCE_DATE_EPOCH is set.
"""

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

LICENSE = Path(__file__).with_name("libgomp-license.txt")
BUNDLED = "GPL-3.0-or-later WITH GCC-exception-3.1"


def record_line(name, data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def with_license(files):
    """Return the files of a wheel, bytes by name, with the license of libgomp if it has that."""
    if not any(Path(name).name.startswith("libgomp") for name in files):
        return files
    (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
    info = metadata.rpartition("/")[0]
    head, blank, page = files[metadata].decode().partition("\n\n")
    lines = head.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("License-Expression: "))
    lines[at] += f" AND {BUNDLED}"
    last = max(i for i, line in enumerate(lines) if line.startswith("License-File: "))
    lines.insert(last + 1, f"License-File: {LICENSE.name}")
    return files | {
        metadata: ("\n".join(lines) + blank + page).encode(),
        f"{info}/licenses/{LICENSE.name}": LICENSE.read_bytes(),
    }


def write_wheel(path, files, seconds):
    """Write a wheel of these files with a new RECORD, all of them of one time."""
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    names = sorted(name for name in files if name != record)
    lines = [record_line(name, files[name]) for name in names]
    files = files | {record: "".join([*lines, f"{record},,\n"]).encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for name in [*names, record]:
            entry = zipfile.ZipInfo(name, time.gmtime(seconds)[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if ".so" in name else 0o100644) << 16
            wheel.writestr(entry, files[name])


def main(wheel, folder):
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(
            [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", work, wheel], check=True
        )
        (repaired,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(repaired) as opened:
            files = {name: opened.read(name) for name in opened.namelist() if name[-1] != "/"}
        Path(folder).mkdir(parents=True, exist_ok=True)
        seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        write_wheel(Path(folder, repaired.name), with_license(files), seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
