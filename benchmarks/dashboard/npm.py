"""Packages of npm, by the versions and hashes of a package-lock.json."""

import shutil
import subprocess


class NpmError(Exception):
    """npm is not installed."""


def install(manifest, folder):
    """Have npm install the packages locked in the folder `manifest`, unless they are there."""
    lock = "package-lock.json"
    have = folder / lock
    if (folder / "done").exists() and have.read_bytes() == (manifest / lock).read_bytes():
        return
    if shutil.which("npm") is None:
        raise NpmError("this needs npm for scripts that pages load (Debian: npm)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("package.json", lock):
        shutil.copy(manifest / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "done").touch()
