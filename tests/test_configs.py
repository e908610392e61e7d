"""The folder of the Hydra configs."""

import shutil
import subprocess
import sys
from pathlib import Path

import sapnet.configs
from sapnet.configs import CONFIG_DIR


def test_the_configs_of_a_checkout_are_found():
    assert CONFIG_DIR.is_absolute() and (CONFIG_DIR / "hydra" / "help" / "sapnet.yaml").is_file()


def test_the_configs_of_an_installed_package_are_preferred(tmp_path):
    package = tmp_path / "sapnet"
    (package / "conf").mkdir(parents=True)
    (tmp_path / "conf").mkdir()
    for name in ("__init__.py", "configs.py"):
        shutil.copy(Path(sapnet.configs.__file__).parent / name, package / name)
    script = "import sapnet.configs; print(sapnet.configs.CONFIG_DIR)"
    out = subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, text=True)
    assert Path(out.strip()) == (package / "conf").resolve()
