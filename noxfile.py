#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["nox>=2025.2.9"]
# ///
"""One session a chore; nox --list names them."""

import os
import pathlib
import platform
import re
import shutil
import tempfile

import nox

nox.options.sessions = ["lint", "types", "stubs", "cpp", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = pathlib.Path(__file__).parent
STUB = ROOT / "python" / "torch_plateau" / "_core.pyi"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def install(session: nox.Session, *what: str) -> None:
    """Install at the versions in constraints.txt, torch first."""
    session.install("-c", "constraints.txt", "torch", *what)


def group(name: str) -> tuple[str, ...]:
    """Return what a dependency group of pyproject.toml names."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite; warnings are errors, in C++ too."""
    install(session, ".[test]")
    session.run("pytest", *session.posargs)


# Of the suite what needs no trainer: the rule, lanes, schedulers, optimizers, histories, the build.
CORE = (
    "rule_transitions matches_torch drop_in drop_in_cuts lanes bad_input batched batched_groups "
    "tensor_rates lane_lr lane_lr_rows lane_optimizers lane_optimizers_life stack best clip "
    "compose hooks life life_edges life_writes moved_memory options noise halving replay sweep "
    "diagnose histories optimizer_table security without_extras build"
)


@nox.session(default=False, python=["3.10", "3.11", "3.12", "3.13", "3.14"])
@nox.parametrize("torch", ["2.10.0", "2.13.0", "2.14.1"])
def versions(session: nox.Session, torch: str) -> None:
    """Run what needs no trainer on another Python and torch; docs/versions.md says what was run."""
    session.install(f"torch=={torch}", *group("core"), ".[demo]")
    session.run("pytest", *(f"tests/test_{name}.py" for name in CORE.split()), *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style: ruff for Python, clang-format for C++ (use -- --fix to mend)."""
    session.install("-c", "constraints.txt", *group("lint"))
    fix = "--fix" in session.posargs
    endings = (".hpp", ".cpp", ".h", ".cu", ".cuh")
    trees = (ROOT / "csrc", ROOT / "tests" / "cpp", ROOT / "benchmarks" / "instructions")
    sources = sorted(str(f) for tree in trees for f in tree.rglob("*") if f.suffix in endings)
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))
    session.run("clang-format", "-i", *([] if fix else ["--dry-run", "-Werror"]), *sources)


@nox.session
def types(session: nox.Session) -> None:
    """Run mypy --strict on the package."""
    install(session, *group("types"))
    session.run("mypy")


@nox.session
def stubs(session: nox.Session) -> None:
    """Generate _core.pyi and what follows from the table of settings; -- --check compares."""
    session.env["TORCH_PLATEAU_CUDA"] = "OFF"  # the module's face is the same without kernels
    install(session, *group("stubs"), ".")
    with tempfile.TemporaryDirectory() as out:
        session.run("pybind11-stubgen", "torch_plateau._core", "--exit-code", "-o", out)
        made = pathlib.Path(out, "torch_plateau", "_core.pyi")
        session.run("ruff", "check", "--fix-only", "--quiet", "--select=I,UP", str(made))
        session.run("ruff", "format", "--quiet", str(made))
        if "--check" not in session.posargs:
            STUB.write_text(made.read_text())
        elif STUB.read_text() != made.read_text():
            session.error("_core.pyi differs from the module: run nox -s stubs")
    session.run("python", "docs/generate_settings.py", *session.posargs)
    session.run("python", "docs/generate_optimizers.py", *session.posargs)


def build_cpp(session: nox.Session, *targets: str) -> None:
    """Build what is in C++ and has no Python in it; all of it unless targets are named."""
    session.install("-c", "constraints.txt", *group("cpp"))
    flags = ("-DTORCH_PLATEAU_WERROR=ON", "-DCMAKE_BUILD_TYPE=Release")
    session.run("cmake", "-S", ".", "-B", "build/cpp", "-G", "Ninja", *flags)
    only = ("--target", *targets) if targets else ()
    session.run("cmake", "--build", "build/cpp", *only)


@nox.session
def cpp(session: nox.Session) -> None:
    """Build and run the C++ tests, with no Python in them; CUDA sources where there is nvcc."""
    build_cpp(session)
    kernels = any(pathlib.Path("build/cpp").rglob("step.cu.o"))
    session.log("CUDA sources compiled" if kernels else "NO nvcc: CUDA sources were NOT compiled")
    session.run("ctest", "--test-dir", "build/cpp", "--output-on-failure", "--parallel", "2")


# What each is compiled with, its runtime, and the environment to run in. Leaks are looked for in
# the C++ tests alone: Python and torch keep much until the end.
CHECKERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "address": (
        "-fsanitize=address,undefined -fno-sanitize-recover=all",
        "asan",
        {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
    ),
    "thread": (
        "-fsanitize=thread",
        "tsan",
        {"TSAN_OPTIONS": "exitcode=66"},
    ),
    "valgrind": ("", "", {}),
}
# The tests of the core and its binding, no trainer's; names of files in tests/.
SANITIZED = {
    "address": (
        "test_lanes test_drop_in test_batched test_life test_life_edges test_moved_memory"
        " test_replay test_lane_optimizers test_rule_transitions test_two_threads test_bad_input"
    ),
    "thread": "test_two_threads",
    "valgrind": "test_rule_transitions test_life_edges",
}


def runtime_of(session: nox.Session, cxx: str, name: str) -> str:
    """Return where a compiler has the runtime of a sanitizer, to be loaded before Python."""
    # clang finds g++'s by that name too
    names = f"libclang_rt.{name}-{platform.machine()}.so", f"lib{name}.so"
    asked = (
        session.run(cxx, f"-print-file-name={each}", external=True, silent=True) for each in names
    )
    found = [path.strip() for path in asked if path and os.path.isabs(path.strip())]
    if not found:
        session.error(f"{cxx} has no lib{name}")
    return found[0]


@nox.session(default=False)
@nox.parametrize("kind", list(CHECKERS))
def sanitize(session: nox.Session, kind: str) -> None:
    """Run tests of the core under ASan and UBSan, TSan or valgrind; by another compiler with CXX.

    With -- --cpp only those with no Python in them, and not the emulated kernels: minutes.
    """
    flags, runtime, env = CHECKERS[kind]
    cxx = os.environ.get("CXX", "g++")
    ends = f"{kind}-{pathlib.Path(cxx).name}"
    compiled = {"CXX": cxx, "CXXFLAGS": f"-O1 -g1 -fno-omit-frame-pointer {flags}"}
    one_layout = ["setarch", "--addr-no-randomize"] if kind == "thread" else []  # which TSan wants
    only_cpp = "--cpp" in session.posargs
    if kind != "valgrind":
        session.install("-c", "constraints.txt", *group("cpp"))
        build = f"build/{ends}"
        what = ("-DCMAKE_BUILD_TYPE=Debug", "-DTORCH_PLATEAU_CUDA=OFF")
        session.run("cmake", "-S", ".", "-B", build, "-G", "Ninja", *what, env=compiled)
        tests = [f"test_{name}" for name in ("rule", "loops", "reasons", "alike")]
        if not only_cpp and kind != "thread":  # whose emulation starts a thread for each of CUDA's
            tests.append("test_kernel")
        session.run("cmake", "--build", build, "--target", *tests)
        for test in tests:
            session.run(*one_layout, f"{build}/{test}", env=env, external=True)
    if only_cpp:
        return
    if "clang" in cxx:
        compiled["CXXFLAGS"] += " -shared-libsan"
    settings = ("-C", f"build-dir=build/{ends}-module", "-C", "cmake.build-type=Debug")
    session.env["TORCH_PLATEAU_CUDA"] = "OFF"
    install(session, *group("core"), *group("cpp"))
    session.install("--no-deps", "--force-reinstall", *settings, ".", env=compiled)
    env = {**env, "PYTHONMALLOC": "malloc"}
    command = ["python", "-m", "pytest", "-p", "no:cacheprovider", *session.posargs]
    if kind == "valgrind":
        log = pathlib.Path(session.create_tmp(), "valgrind.log").resolve()
        command = ["valgrind", "--leak-check=no", f"--log-file={log}", *command]
    else:
        loaded = [runtime_of(session, cxx, runtime)]
        if kind == "thread":
            team = f"{session.create_tmp()}/libteam.so"
            build = ("-shared", "-fPIC", "-O1", "-g1", flags, "tests/sanitize/team.cpp", "-o", team)
            shared = ("-shared-libsan",) if "clang" in cxx else ()
            session.run(cxx, *build, *shared, external=True)
            loaded.append(team)
        loaded.append(runtime_of(session, cxx, "stdc++"))  # or C++ exceptions of torch end it
        env["LD_PRELOAD"] = " ".join(loaded)
    files = [f"tests/{name}.py" for name in SANITIZED[kind].split()]
    session.run(*one_layout, *command, *files, env=env, external=True)
    if kind == "valgrind" and "plateau::" in log.read_text():  # what Python and torch do is theirs
        session.error(f"valgrind reports frames of the core: {log}")


@nox.session(default=False)
def cross(session: nox.Session) -> None:
    """Build the C++ tests for aarch64 and run them by qemu-user; no operation may be fused.

    Needs g++-aarch64-linux-gnu and qemu-user. The kernels' test is left out: its emulation starts a
    thread for each of CUDA's, of which qemu keeps the memory.
    """
    session.install("-c", "constraints.txt", *group("cpp"))
    target = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    compiler = "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"
    runner = "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu"
    flags = ("-DTORCH_PLATEAU_CUDA=OFF", "-DTORCH_PLATEAU_WERROR=ON", "-DCMAKE_BUILD_TYPE=Release")
    configure = ("cmake", "-S", ".", "-B", "build/aarch64", "-G", "Ninja")
    session.run(*configure, *flags, *target, compiler, runner)
    tests = ("test_rule", "test_loops", "test_reasons", "test_alike")
    session.run("cmake", "--build", "build/aarch64", "--target", "plateau_core", *tests)
    session.run("ctest", "--test-dir", "build/aarch64", "--output-on-failure", "-E", "kernel")
    disassemble = ("aarch64-linux-gnu-objdump", "-d", "build/aarch64/libplateau_core.a")
    code = session.run(*disassemble, silent=True, external=True)
    fused = re.findall(r"\t(fn?m(?:add|sub)|fml[as])\t", code)
    if fused:
        session.error(f"{len(fused)} operations round once where Python rounds twice: {set(fused)}")


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """Build the sdist and, from it, this Python's wheel; repair and check them, in dist/."""
    session.install("-c", "constraints.txt", *group("release"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    wheel = str(*ROOT.glob("dist/*-linux_*.whl"))
    session.run("auditwheel", "repair", "--wheel-dir", "dist", wheel)
    pathlib.Path(wheel).unlink()
    made = sorted(map(str, ROOT.glob("dist/*")))
    session.run("twine", "check", "--strict", *made)
    session.run("check-wheel-contents", *(each for each in made if each.endswith(".whl")))


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Look the pinned versions up in the list of known vulnerabilities; needs the network."""
    session.install("-c", "constraints.txt", "pip-audit")
    pinned = ("--requirement", "constraints.txt", "--no-deps", "--disable-pip")
    session.run("pip-audit", "--strict", *pinned)


@nox.session(default=False)
def instructions(session: nox.Session) -> None:
    """Compare instruction counts of steps with those recorded; -- --write records them.

    With -- --python PYTHON the package is not built, but taken from where that one has it.
    """
    build_cpp(session, "count_loops", "count_marks")
    if "--python" not in session.posargs:
        session.env["TORCH_PLATEAU_CUDA"] = "OFF"  # what is counted has no kernels
        install(session, ".")
    session.run("python", "benchmarks/instructions/count.py", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Write the site to build/site; warnings are errors. -- --links asks for each external link."""
    install(session, ".[docs,integrations,tensorboard]")
    session.env["KERAS_BACKEND"] = "torch"
    builder, out = ("linkcheck", "links") if "--links" in session.posargs else ("html", "site")
    session.run("sphinx-build", "-W", "--keep-going", "-b", builder, "docs", f"build/{out}")


@nox.session(default=False)
def conformance(session: nox.Session) -> None:
    """Live whole lives beside the oracles, until the record has -- --lane-steps 1e9 of them."""
    install(session, ".", "hypothesis", "numpy")
    session.run("python", "-m", "conformance", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Try a fault at 200 points of every call; run a million steps and build and drop 10,000.

    With -- 1000000 at every point, which takes hours. Needs a compiler, for memory that ends.
    """
    install(session, ".", "pytest", "numpy")
    most = session.posargs or ("200",)
    for kind in ("full", "interrupts"):
        session.run("python", "tests/test_faults.py", kind, *most)
    session.run("python", "tests/scarce.py", *most)
    session.run("python", "tests/test_signals.py", "200")
    session.run("python", "tests/growth.py")
    session.run("python", "tests/dropped.py")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure all that needs neither a GPU nor an older version, and write the tables."""
    install(session, ".", "numpy", "jax", "optax")
    for script in ("step", "life", "replay", "optimizers", "false_alarms", "ranks"):
        session.run("python", f"benchmarks/{script}.py")
    session.run("python", "benchmarks/step.py", "--parts")
    session.log("versions.py compares with an older version: see benchmarks/README.md")
    session.run("python", "benchmarks/tables.py")
