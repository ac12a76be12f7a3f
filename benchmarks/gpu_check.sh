#!/usr/bin/env bash
# Everything that can only be checked on a GPU, from a checkout, without a network: build and install
# with CUDA, C++ tests, the whole suite, compute-sanitizer, and last and alone the benchmark.
#
#     benchmarks/gpu_check.sh OUT_DIR [--dlpack DIR] [--wheels DIR] [--built DIR] [--commit SHA] [--gpu-only] [--quick]
#
#   --dlpack  holds dlpack/dlpack.h; without it tvm-ffi is asked
#   --wheels  wheels of what this machine lacks, installed into a fresh folder, as they are
#   --built   holds this package's wheel and test_kernel_device, compiled elsewhere for this machine
#   --commit  what is measured, where the checkout has no .git
#   --gpu-only  leaves out what needs no GPU, and is done in seven minutes
#   --quick   a short benchmark
#
# Writes OUT_DIR/gpu_check.json, OUT_DIR/gpu.json and a log of each step, whatever fails, and exits
# with 1 if a step failed or a required one was not run: test files whose modules are missing count
# as required. Takes eight minutes at most. PYTHON names the interpreter, python3 unless told.
set -euo pipefail

deadline=480 # seconds for everything
reserved=190 # of them for the benchmark

usage() {
  sed -n '5p' "$0" | sed 's/^# */usage: /' >&2
  exit 2
}

case ${1:---} in --*) usage ;; esac
out=$1
shift
dlpack='' wheels='' built='' commit='' bench=() only=()
while [ $# -gt 0 ]; do
  case $1 in --quick | --gpu-only) ;; *) if [ $# -lt 2 ]; then usage; fi ;; esac
  case $1 in
    --dlpack) dlpack=$(cd "$2" && pwd) && shift ;;
    --wheels) wheels=$(cd "$2" && pwd) && shift ;;
    --built) built=$(cd "$2" && pwd) && shift ;;
    --commit) commit=$2 && shift ;;
    --quick) bench+=(--quick) ;;
    --gpu-only) only=(--gpu-only) bench+=(--each 0.15 --limit 95) deadline=400 reserved=120 ;;
    *) usage ;;
  esac
  shift
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
steps=$out/gpu_check.tsv
: >"$steps"
rm -f "$out/gpu_check.json" "$out/gpu.json" "$out/pytest.xml"

# Whatever happens: the JSON, the table, and an exit status that says whether all passed.
finish() {
  local status=$?
  trap - EXIT
  "$python" .ci/gpu_report.py report "$out" --status "$status" --commit "$commit" || status=1
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 143' INT TERM

note() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$steps"; } # name, status, seconds, reason

# step NAME SECONDS COMMAND...: runs it with a time limit and notes how it ended; never fails. At the
# limit it is interrupted, which makes pytest say what failed until then.
step() {
  local name=$1 limit=$2 began=$SECONDS code=0 status=passed reason='' left
  shift 2
  left=$((deadline - SECONDS))
  if [ "$name" != benchmark ]; then left=$((left - reserved)); fi
  if [ "$left" -lt "$limit" ]; then limit=$left; fi
  if [ "$limit" -le 0 ]; then
    skip "$name" "its share of the $deadline seconds was over"
    return
  fi
  echo "== $name"
  timeout --signal=INT --kill-after=15 "$limit" "$@" >"$out/$name.log" 2>&1 </dev/null || code=$?
  if [ "$code" -ne 0 ]; then
    status=failed reason="exit status $code"
    if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then reason="stopped after $limit s"; fi
    tail -n 15 "$out/$name.log"
    echo "== $name: FAILED, $reason"
  fi
  note "$name" "$status" $((SECONDS - began)) "$reason"
}

# skip NAME REASON, for what is required; absent NAME REASON, for what is not.
skip() { note "$1" 'not run' 0 "$2" && echo "== NOT RUN: $1: $2"; }
absent() { note "$1" 'not run, optional' 0 "$2" && echo "== NOT RUN: $1: $2"; }
passed() { grep -q "^$1	passed	" "$steps"; }

PATH=$PATH:$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')
if ! command -v nvcc >/dev/null && [ -n "${CUDA_HOME:-}" ]; then PATH=$PATH:$CUDA_HOME/bin; fi
export PATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
export CUDAARCHS=${CUDAARCHS:-native}
export TORCH_PLATEAU_CUDA=ON TORCH_PLATEAU_WERROR=ON TORCH_PLATEAU_DLPACK_INCLUDE=$dlpack
pip=("$python" -m pip install --no-index --no-deps --no-cache-dir)

step device 60 "$python" -c '
import sys, torch
print(sys.version, torch.__version__, torch.version.cuda)
if not torch.cuda.is_available():
    sys.exit("no GPU: torch finds no CUDA device")
print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
torch.ones(8, device="cuda").sum().item()
'

if [ -n "$wheels" ]; then
  step wheels 60 "${pip[@]}" --target "$work/wheels" "$wheels"/*.whl
  export PYTHONPATH=$work/wheels${PYTHONPATH:+:$PYTHONPATH}
fi

targets=(all)
if [ ${#only[@]} -gt 0 ]; then targets=(test_kernel_device); fi
build_cpp() {
  step cpp_configure 60 cmake -S . -B "$work/cpp" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DTORCH_PLATEAU_CUDA=ON -DTORCH_PLATEAU_WERROR=ON
  if passed cpp_configure; then
    step cpp_build 90 cmake --build "$work/cpp" --target "${targets[@]}"
  else
    skip cpp_build "cpp_configure did not pass"
  fi
}
if [ -n "$built" ]; then
  absent cpp_build "it was built elsewhere"
  step install 60 "${pip[@]}" --target "$work/package" "$built"/torch_plateau-*.whl
else
  build_cpp &
  step install 120 "${pip[@]}" --no-build-isolation -v -C "build-dir=$work/module" \
    --target "$work/package" .
  wait
fi
export PYTHONPATH=$work/package${PYTHONPATH:+:$PYTHONPATH}

kernel_device=$work/cpp/test_kernel_device
if [ -n "$built" ]; then kernel_device=$built/test_kernel_device; fi
if [ ${#only[@]} -gt 0 ]; then
  absent ctest "it needs no GPU"
elif [ -n "$built" ]; then
  absent ctest "it was not built here"
elif passed cpp_build; then
  step ctest 120 ctest --test-dir "$work/cpp" --output-on-failure
else
  skip ctest "cpp_build did not pass"
fi
if [ -x "$kernel_device" ]; then
  step kernel_device 60 "$kernel_device"
else
  skip kernel_device "it was not built"
fi

sanitizer=$(command -v compute-sanitizer || true)
if [ -z "$sanitizer" ] && nvcc=$(command -v nvcc); then
  beside=$(dirname "$(readlink -f "$nvcc")")/compute-sanitizer
  if [ -x "$beside" ]; then sanitizer=$beside; fi
fi
for tool in memcheck racecheck initcheck synccheck; do
  if [ -z "$sanitizer" ]; then
    absent "$tool" "compute-sanitizer is not installed"
  elif ! passed kernel_device; then
    skip "$tool" "kernel_device did not pass"
  else
    step "$tool" 60 "$sanitizer" --tool "$tool" --error-exitcode 9 "$kernel_device"
  fi
done

if passed install; then
  ignored=()
  while IFS=$'\t' read -r file modules; do
    ignored+=("--ignore=$file")
    skip "$file" "needs $modules"
  done < <("$python" .ci/gpu_report.py missing)
  export TORCH_PLATEAU_REQUIRE_CUDA=1
  workers=()
  if "$python" -c 'import xdist' 2>/dev/null; then
    workers=(-n "$(($(nproc) > 14 ? 14 : $(nproc)))" --dist worksteal)
    export OMP_NUM_THREADS=2 # for each of them
  fi
  step pytest 240 "$python" -m pytest -p no:cacheprovider -p no:benchmark --durations=10 ${workers[@]+"${workers[@]}"} \
    --junitxml="$out/pytest.xml" ${only[@]+"${only[@]}"} ${ignored[@]+"${ignored[@]}"}
  if passed pytest; then
    step pytest_skips 20 "$python" .ci/gpu_report.py skips "$out"
  else
    skip pytest_skips "pytest did not pass"
  fi
else
  skip pytest "install did not pass"
fi

unset OMP_NUM_THREADS
if passed install; then
  step benchmark 240 "$python" benchmarks/gpu.py --out "$out/gpu.json" --commit "$commit" \
    ${bench[@]+"${bench[@]}"}
  if passed benchmark; then cat "$out/benchmark.log"; fi
else
  skip benchmark "install did not pass"
fi
