"""The start from a bare Python: what is asked, what is current, and what a cut-off install leaves behind."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oms import bootstrap


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose requirements are empty, so that a real environment is made without a network."""
    for name in (bootstrap.RUNTIME, bootstrap.DEVELOPMENT, bootstrap.INSTALLER):
        (tmp_path / name).write_text("")
    return tmp_path


def stamp(checkout: Path) -> Path:
    return checkout / ".venv" / "installed"


def installed(checkout: Path, *, development: bool = False) -> None:
    """Look like a complete install."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    bootstrap._write_stamp(checkout, development=development)


class TestParse:
    @pytest.mark.parametrize(
        "line",
        ["--data /x up --port 1", "up --data /x --port 1", "up --port 1 --data /x", "up --port 1 --data=/x"],
    )
    def test_takes_the_data_folder_from_anywhere(self, line: str) -> None:
        assert bootstrap.parse(line.split()) == ("up", ["--port", "1"], Path("/x"))

    def test_leaves_what_stands_behind_two_dashes(self) -> None:
        assert bootstrap.parse(["test", "--", "--data", "x"])[1] == ["--", "--data", "x"]

    def test_prefers_the_option_to_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMS_DATA", "/from/environment")

        assert bootstrap.parse(["up"])[2] == Path("/from/environment")
        assert bootstrap.parse(["up", "--data", "/option"])[2] == Path("/option")

    def test_uses_var_in_the_checkout_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMS_DATA", raising=False)

        assert bootstrap.parse([]) == ("", [], bootstrap.ROOT / "var")

    def test_refuses_a_missing_folder(self) -> None:
        with pytest.raises(SystemExit, match="needs a folder"):
            bootstrap.parse(["up", "--data"])


class TestIsCurrent:
    def test_is_false_before_the_first_install(self, checkout: Path) -> None:
        assert not bootstrap.is_current(development=False, root=checkout)

    def test_runtime_install_serves_up_but_not_test(self, checkout: Path) -> None:
        installed(checkout)

        assert bootstrap.is_current(development=False, root=checkout)
        assert not bootstrap.is_current(development=True, root=checkout)

    def test_development_install_serves_both(self, checkout: Path) -> None:
        installed(checkout, development=True)

        assert bootstrap.is_current(development=False, root=checkout)
        assert bootstrap.is_current(development=True, root=checkout)

    @pytest.mark.parametrize("changed", [bootstrap.RUNTIME, bootstrap.DEVELOPMENT])
    def test_notices_changed_pins(self, checkout: Path, changed: str) -> None:
        installed(checkout, development=True)

        (checkout / changed).write_text("django==0\n")

        assert not bootstrap.is_current(development=False, root=checkout)

    def test_notices_a_python_that_went_away(self, checkout: Path) -> None:
        installed(checkout)
        python = checkout / ".venv" / "bin" / "python"
        python.unlink()
        python.symlink_to("/gone/python3")

        assert not bootstrap.is_current(development=False, root=checkout)


class TestEnsure:
    def test_makes_a_working_environment_and_says_what_it_does(
        self, checkout: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bootstrap.ensure(development=True, root=checkout)

        python = checkout / ".venv" / "bin" / "python"
        prefix = subprocess.run(
            [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
        )
        assert Path(prefix.stdout.strip()).resolve() == (checkout / ".venv").resolve()
        assert bootstrap.is_current(development=True, root=checkout)
        told = capfd.readouterr()
        assert "Setting up" in told.err
        assert told.out == ""  # a command's own output stays clean

    def test_an_install_that_failed_is_not_taken_for_done(self, checkout: Path) -> None:
        (checkout / bootstrap.RUNTIME).write_text("./no-such-package\n")

        with pytest.raises(bootstrap.CannotSetUp, match="again"):
            bootstrap.ensure(development=False, root=checkout)

        assert not stamp(checkout).exists()
        (checkout / bootstrap.RUNTIME).write_text("")
        bootstrap.ensure(development=False, root=checkout)
        assert bootstrap.is_current(development=False, root=checkout)

    def test_two_starts_at_once_install_once(self, checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
        starts = [
            threading.Thread(target=bootstrap.ensure, kwargs={"development": False, "root": checkout}) for _ in "ab"
        ]

        for start in starts:
            start.start()
        for start in starts:
            start.join(120)

        assert capfd.readouterr().err.count("Setting up") == 1
        assert bootstrap.is_current(development=False, root=checkout)

    def test_names_the_package_that_debian_lacks(
        self, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        poor = tmp_path / "python-without-venv"
        poor.write_text("#!/bin/sh\necho 'ensurepip is not available'\nexit 1\n")
        poor.chmod(0o755)
        monkeypatch.setattr(sys, "_base_executable", str(poor))
        monkeypatch.setenv("PATH", "/nowhere")

        with pytest.raises(bootstrap.CannotSetUp, match="apt-get install python3-venv"):
            bootstrap.ensure(development=False, root=checkout)

    def test_does_not_aim_at_another_environment(self) -> None:
        kept = bootstrap._installer_environment({"VIRTUAL_ENV": "/x", "PYTHONPATH": "/y", "HTTPS_PROXY": "p"})

        assert kept == {"HTTPS_PROXY": "p"}


def test_no_requirements_name_an_address() -> None:
    for name in (bootstrap.RUNTIME, bootstrap.DEVELOPMENT, bootstrap.INSTALLER):
        text = (bootstrap.ROOT / name).read_text()
        assert "://" not in text, name
        assert "--index" not in text, name
        assert "--find-links" not in text, name


def test_every_pin_is_held_to_hashes() -> None:
    for name in (bootstrap.RUNTIME, bootstrap.DEVELOPMENT, bootstrap.INSTALLER):
        pins = (bootstrap.ROOT / name).read_text().replace("\\\n", " ").strip().split("\n")
        assert all("==" in pin and "--hash=sha256:" in pin for pin in pins), name


def test_an_old_python_is_told_what_it_needs() -> None:
    """manage.py must parse in any Python 3, so that the sentence is what people see."""
    source = (bootstrap.ROOT / "manage.py").read_text()

    compile(source, "manage.py", "exec", dont_inherit=True)
    assert source.index("version_info") < source.index("from oms")
    old = "import sys; sys.version_info = (3, 9, 0); exec(open('manage.py').read())"
    told = subprocess.run(
        [sys.executable, "-c", old],
        capture_output=True,
        text=True,
        check=False,
        cwd=bootstrap.ROOT,
        env=dict(os.environ),
    )
    assert told.returncode == 1
    assert "Python 3.11 or newer" in told.stderr
