#!/usr/bin/env bash
# Do the declared bounds hold? For each Python found, the lowest declared versions and the newest ones: install, pip check,
# import, the demo, and tests: a third of the suite (one file of three), or with --quick those that meet other libraries.
#
#   scripts/check_versions.sh                      # every Python 3.10 to 3.13 on the PATH or under pyenv
#   scripts/check_versions.sh --quick 3.10:lowest 3.13:newest
#   scripts/check_versions.sh --bounds | --third   # what CI takes: the lowest versions, and a third of the test files
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD quick=""
bounds() { # every ">=" of the required packages becomes "=="
  awk '/^dependencies = \[/ {on = 1; next} /^\]/ {on = 0} on' pyproject.toml | sed -nE 's/^ *"([A-Za-z0-9_.-]+)>=([0-9.]+)".*/\1==\2/p'
}
third() { find tests -name 'test_*.py' ! -name test_notebooks.py ! -name test_docs.py | sort | awk 'NR % 3 == 1'; }
[ "${1:-}" = --bounds ] && bounds && exit
[ "${1:-}" = --third ] && third && exit
[ "${1:-}" = --quick ] && quick=yes && shift
work=$(mktemp -d "${TMPDIR:-/tmp}/sparsecbm-versions.XXXXXX")
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1

find_python() { # 3.12 -> its interpreter
  for found in "$(command -v "python$1")" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    [ -n "$found" ] && "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null && echo "$found" && return
  done
}

cases=("$@")
[ $# -gt 0 ] || for version in 3.10 3.11 3.12 3.13; do cases+=("$version:lowest" "$version:newest"); done
status=0
printf '%-14s %9s %9s  %-9s %-6s %-24s %s\n' python install MiB "pip check" demo tests "key versions"
for case in "${cases[@]}"; do
  version=${case%:*} end=${case#*:} folder=$work/$version-${case#*:}
  python=$(find_python "$version")
  [ -n "$python" ] || { printf '%-14s not on this machine\n' "$case"; continue; }
  mkdir -p "$folder/demo" && log=$folder/log
  : > "$folder/bounds"
  [ "$end" = lowest ] && bounds > "$folder/bounds"
  started=$SECONDS
  { "$python" -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q -c "$folder/bounds" "$root[test]"; } > "$log" 2>&1 \
    || { printf '%-14s cannot be installed: %s\n' "$case" "$(grep -A3 -m1 ERROR "$log" | paste -sd' ')"; status=1; continue; }
  installed=$((SECONDS - started))
  PATH=$folder/venv/bin:$PATH
  export SPARSECBM_CACHE=$folder/cache HF_HOME=$folder/hf HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1
  check=clean demo=ok
  "$folder/venv/bin/pip" check >> "$log" 2>&1 || { check=$("$folder/venv/bin/pip" check | head -1) status=1; }
  (cd "$folder/demo" && sparsecbm demo) >> "$log" 2>&1 || { demo=FAILED status=1; tail -3 "$log"; }
  if [ -n "$quick" ]; then
    files=(tests/encoders/test_encoders_load.py tests/data/test_data_tables.py tests/estimators/test_as_expected.py tests/untrusted/test_stored_models.py)
  else
    mapfile -t files < <(third)
  fi
  python -m pytest -q -p no:cacheprovider "${files[@]}" > "$folder/tests" 2>&1 || { status=1; grep -E "^(FAILED|ERROR)" "$folder/tests"; }
  versions=$(python - <<'PY'
from importlib.metadata import version
print(*(f"{n} {version(n)}" for n in ("torch", "transformers", "huggingface_hub", "datasets", "numpy", "scikit-learn", "pillow")), sep=", ")
PY
)
  printf '%-14s %7d s %9s  %-9s %-6s %-24s %s\n' "$case" "$installed" "$(du -sm "$folder/venv" | cut -f1)" "$check" "$demo" \
    "$(tail -1 "$folder/tests" | grep -oE '[0-9]+ (failed|passed)|[0-9]+ skipped' | paste -sd' ')" "$versions"
  PATH=${PATH#*:}
  rm -rf "$folder"
done
exit $status
