#!/usr/bin/env bash
# Do the declared bounds hold? For each Python found, the lowest declared versions and the newest ones: install, check, import, the demo,
# and tests: a third of the suite (one file of three), or with --quick those that meet other libraries.
#
#   scripts/check_versions.sh                      # every Python 3.10 to 3.13 on the PATH or under pyenv
#   scripts/check_versions.sh --quick oldest:lowest 3.13:newest
#
# uv installs: it knows what "lowest" means, and shares files between environments (UV_CACHE_DIR and TMPDIR on one disk: 8 GiB a case).
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD quick=""
[ "${1:-}" = --quick ] && quick=yes && shift
work=$(mktemp -d "${TMPDIR:-/tmp}/sparsecbm-versions.XXXXXX")
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$work/pyc UV_PYTHON_DOWNLOADS=never HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1

find_python() { # 3.12 -> its interpreter
  for found in "$(command -v "python$1")" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    [ -n "$found" ] && "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null && echo "$found" && return
  done
}

uv=$(command -v uv) || { python3 -m venv "$work/uv" && "$work/uv/bin/pip" install -q uv && uv=$work/uv/bin/uv; } > "$work/log" 2>&1 \
  || { printf 'skipped: uv is not here and cannot be installed: %s\n' "$(tail -1 "$work/log")"; exit 0; }
here=() && for version in 3.10 3.11 3.12 3.13; do [ -n "$(find_python "$version")" ] && here+=("$version"); done
cases=("$@")
[ $# -gt 0 ] || for version in "${here[@]}"; do cases+=("$version:lowest" "$version:newest"); done
if [ -n "$quick" ]; then
  tests=(tests/encoders/test_encoders_load.py tests/data/test_data_tables.py tests/estimators/test_as_expected.py tests/untrusted/test_stored_models.py)
else
  mapfile -t tests < <(find tests -name 'test_*.py' ! -name test_notebooks.py ! -name test_docs.py | sort | awk 'NR % 3 == 1')
fi

status=0
printf '%-12s %8s %6s  %-6s %-7s %-7s %-26s %s\n' python install MiB check import demo tests "key versions"
for case in "${cases[@]}"; do
  version=${case%:*} resolution=highest folder=$work/${case/:/-}
  [ "$version" = oldest ] && version=${here[0]:-3.10}
  [ "${case#*:}" = lowest ] && resolution=lowest-direct
  python=$(find_python "$version")
  [ -n "$python" ] || { printf '%-12s skipped: no Python %s on this machine\n' "$case" "$version"; continue; }
  free=$(df -Pk "$work" | awk 'NR == 2 {print int($4 / 2^20)}')
  [ "$free" -ge 20 ] || { printf '%-12s skipped: %s GiB of disk left in %s, 20 needed\n' "$case" "$free" "$work"; continue; }
  mkdir -p "$folder/demo" && log=$folder/log started=$SECONDS run=$folder/venv/bin/python
  # "lowest-direct" may leave a bound where others conflict: each is said outright. Nothing is compiled.
  : > "$folder/bounds"
  [ $resolution = highest ] || sed -nE '/^dependencies/,/^\]/ s/^ *"([A-Za-z0-9_.-]+)>=([0-9.]+)".*/\1==\2/p' pyproject.toml > "$folder/bounds"
  timeout 900 bash -ec '"$0" venv -q -p "$1" "$2/venv"
    "$0" pip install -q --python "$2/venv" --resolution "$3" -c "$2/bounds" --only-binary :all: --no-binary sparsecbm "$4[test]"' \
    "$uv" "$python" "$folder" "$resolution" "$root" > "$log" 2>&1
  code=$? installed=$((SECONDS - started))
  [ $code = 124 ] && { printf '%-12s skipped: not installed within 15 minutes\n' "$case"; continue; }
  [ $code = 0 ] || { printf '%-12s cannot be installed: %s\n' "$case" "$(tail -5 "$log")"; status=1; continue; }
  export SPARSECBM_CACHE=$folder/cache HF_HOME=$folder/hf
  ok() { (cd "$folder/demo" && "$@") >> "$log" 2>&1 && echo ok || echo FAILED; }
  check=$(ok "$uv" pip check --python "$run") import=$(ok "$run" -c "import sparsecbm") demo=$(ok "$run" -m sparsecbm demo)
  [ "$check$import$demo" = okokok ] || { status=1; tail -5 "$log"; }
  "$run" -m pytest -q -p no:cacheprovider "${tests[@]}" > "$folder/tests" 2>&1 || { status=1; grep -E "^(FAILED|ERROR)" "$folder/tests"; }
  printf '%-12s %6d s %6s  %-6s %-7s %-7s %-26s %s\n' "$version:${case#*:}" "$installed" "$(du -sm "$folder/venv" | cut -f1)" "$check" "$import" \
    "$demo" "$(tail -1 "$folder/tests" | grep -oE '[0-9]+ (failed|passed|skipped)|in [0-9]+' | paste -sd' ') s" \
    "$("$uv" pip freeze --python "$run" 2>> "$log" | grep -E '^(torch|transformers|huggingface-hub|datasets|numpy|scikit-learn|pillow)==' | paste -sd' ')"
  rm -rf "$folder"
done
exit $status
