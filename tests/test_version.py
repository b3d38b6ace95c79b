"""The commit that evaluations and tables record."""

import shutil
import subprocess
import sys
from pathlib import Path

import jaxguard.version

FILE = Path(jaxguard.version.__file__)


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *settings, "-C", folder, *words], capture_output=True, text=True, check=True).stdout


def recorded(folder: Path) -> str:
    """What a copy of the package in this folder takes for its commit."""
    program = "import version; print(version.commit())"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code_and_marked_if_files_differ(tmp_path: Path) -> None:
    """Also in an archive, which has no history; never that of a repository around an installed package."""
    shutil.copyfile(FILE, tmp_path / "version.py")
    (tmp_path / ".gitattributes").write_text("version.py export-subst\n")
    assert recorded(tmp_path) == jaxguard.version.__version__
    git(tmp_path, "init")
    git(tmp_path, "add", ".gitattributes")
    git(tmp_path, "commit", "-m", "a")
    assert recorded(tmp_path) == jaxguard.version.__version__, "somebody else's repository"
    git(tmp_path, "add", "version.py")
    git(tmp_path, "commit", "-m", "b")
    head = git(tmp_path, "rev-parse", "--short", "HEAD").strip()
    assert recorded(tmp_path) == head

    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    git(tmp_path, "archive", "--output", "code.tar", "HEAD")
    subprocess.run(["tar", "-xf", "code.tar", "-C", unpacked], cwd=tmp_path, check=True)
    assert recorded(unpacked) == head
    with (tmp_path / "version.py").open("a") as file:
        file.write("\n")
    assert recorded(tmp_path) == f"{head}-dirty"
